"""Words and phrases that make a text unsafe to teach, by category. Short lists: recipes add their own.

One pattern a line. `word~` takes any ending, `one|other` either, `…` up to three words between. Only what can hardly
mean anything else stands alone: an ass is an animal, a cock a bird, and what kills may be frost.
"""

from __future__ import annotations

_THEM = "people|immigrants|foreigners|refugees|muslims|jews|christians|blacks|whites|gays|lesbians|women|men|they"
_WILL = "i|we"

UNSAFE: dict[str, str] = {
    "profanity": """
        fuck~
        motherfuck~
        bullshit~
        shit|shits|shitty|shitting|shithead|shithole
        goddamn~
        dickhead~
        scheiße|scheisse|scheiß~|verfickt~
        putain|merde
        joder|mierda
        cazzo|merda
    """,
    "insult": """
        asshole~|arsehole~
        bastard|bastards
        bitch|bitches
        cunt~
        twat|twats
        wanker~
        scumbag~
        douchebag~
        dumbass~
        slut|sluts|slutty
        whore|whores
        idiot|idiots
        moron|morons
        imbecile|imbeciles
        retard|retards|retarded
        piece of shit
        arschloch|arschlöcher|wichser~|hurensohn|hurensöhne|fotze|missgeburt|vollidiot~
        connard|connards|connasse|salope|enculé|enculés
        gilipollas|cabrón|cabrones|hijo de puta|hija de puta
        stronzo|stronzi|vaffanculo|puttana
    """,
    "threat": f"""
        {_WILL} will kill|murder|shoot|stab|strangle|hurt you
        i'll|we'll kill|murder|shoot|stab|strangle|hurt you
        {_WILL} am|are going to kill|murder|shoot|stab|strangle|hurt|beat you
        i'm|we're going to kill|murder|shoot|stab|strangle|hurt|beat you
        i'm|we're gonna kill|murder|shoot|stab|strangle|hurt|beat you
        beat you to death
        know where you live
        you will|shall die tonight|soon|slowly|today
        you are going to die
        ich bringe dich um
        je vais te tuer
        te voy a matar
    """,
    "hate": f"""
        {_THEM} … are vermin|subhuman|subhumans|parasites|cockroaches|scum|animals|filth
        {_THEM} … should be exterminated|gassed|shot|hanged|wiped|eradicated
        {_THEM} … not deserve to live
        {_THEM} … get rid of every one
        subhuman|subhumans|untermenschen|untermensch
        gas the jews
        heil hitler
        white power
        nigger~
        faggot~
        kike|kikes
        wetback|wetbacks
        raghead~
        towelhead~
        tranny|trannies
    """,
    "sexual": """
        blowjob~|handjob~|rimjob~
        cumshot~
        gangbang~
        suck|sucks|sucked|sucking his|my|your|the cock|dick
        deepthroat~
        masturbat~
        jerking off
        child porn~
        porno|porn
        fucking … naked
    """,
    "self_harm": """
        kill yourself|yourselves
        kys
        cut|slit your wrists|wrist|veins|arms
        way|ways|how to commit suicide
        way|ways|how to kill|hang yourself|myself
        way|ways|how to end your|my life
        you should … die
        nobody would miss you
        bring dich um
    """,
}
