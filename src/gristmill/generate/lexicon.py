"""Word lists that tell answers from other words: months, units, number words, words that are never names.

English, German, French and Spanish; other languages still get dates in digits, quantities with symbols and names.
Each list that goes into a pattern is an alternation, longest words first.
"""

from __future__ import annotations


def _alternation(text: str) -> str:
    return "|".join(sorted((word.replace("_", r"\s") for word in text.split()), key=lambda w: (-len(w), w)))


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MONTHS = _alternation(
    "January February March April May June July August September October November December "
    "Januar Jänner Februar März Mai Juni Juli Oktober Dezember "
    "janvier février mars avril mai juin juillet août septembre octobre novembre décembre "
    "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre"
)
DAYS = _alternation(
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday "
    "Mondays Tuesdays Wednesdays Thursdays Fridays Saturdays Sundays "
    "Montag Dienstag Mittwoch Donnerstag Freitag Samstag Sonnabend Sonntag"
)
_NUMBERS = {
    "en": "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million one_hundred "
    "one_thousand a_hundred a_thousand dozen half_a_dozen a_dozen",
    "de": "zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn "
    "achtzehn neunzehn zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig hundert tausend Million "
    "Millionen",
    "fr": "deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize vingt trente quarante "
    "cinquante soixante cent mille",
    "es": "dos tres cuatro cinco seis siete ocho nueve diez once doce trece quince veinte treinta cuarenta cincuenta "
    "cien mil",
}
UNITS = _alternation(
    "metres metre meters meter m kilometres kilometre kilometers kilometer km centimetres centimeters cm millimetres "
    "millimeters mm miles mile feet foot ft inches inch yards yard acres acre hectares hectare fathoms fathom leagues "
    "league knots grams gram g kilograms kilogram kg kilos tonnes tonne tons ton pounds ounces litres litre liters "
    "liter millilitres ml gallons barrels degrees degree percent per_cent seconds second minutes minute hours hour "
    "days day nights weeks week months month years year decades decade centuries dollars euros cents pence shillings "
    "crowns coins volts watts kilowatts kW MW hertz Hz kHz MHz GHz bytes kB MB GB TB KiB MiB GiB bits tokens "
    "Meter Metern Kilometer Kilometern Zentimeter Millimeter Meilen Hektar Gramm Kilogramm Tonnen Liter Litern Grad "
    "Prozent Sekunden Minuten Stunden Tage Tagen Wochen Monate Monaten Jahre Jahren Taler Kronen "
    "mètres mètre kilomètres grammes kilogrammes tonnes litres degrés secondes minutes heures jours semaines mois ans "
    "années metros kilómetros gramos kilogramos toneladas litros grados segundos minutos horas días semanas meses años"
)
BEFORE_YEAR = _alternation(
    "in since by from until till before after during around about of year to through between and "
    "im_Jahr im_Jahre seit bis ab vor nach um Jahr anno en depuis vers dès de desde hasta hacia año"
)
IN_NAMES = _alternation("of de del della di da du des von vom van zu zur am an_der auf bei")
LABELS = _alternation(
    "section number chapter figure fig table page pages version step appendix line item no nr part rule article verse "
    "Abschnitt Kapitel Abbildung Abb Tabelle Seite Seiten Schritt Teil figure tableau capítulo página"
)
WEAK_NUMBERS = frozenset({"one", "thousand", "hundred", "million", "dozen", "0", "1"})
NEVER_NAMES = _words("i i'm i'll i've i'd ok vs etc am pm utc ad bc bce ce")
OPENERS = _words(
    """the a an this that these those it its he she they we you his her their our your my in on at by from to of for
    with without under over after before during since until between among through across near beside behind above
    below inside outside within along around about as if when while where because although though unless once so but
    and or nor yet not no none all any some many most more much few several each every both either neither other
    another such only even also still just then there here today later now soon often never always sometimes usually
    however therefore thus hence instead meanwhile finally first second third next last what which who whom whose how
    why whether do does did is are was were be been has have had can could may might must shall should will would let
    one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty hundreds thousands
    note see use used using zwei drei vier fünf sechs sieben acht neun zehn deux trois quatre cinq dos tres cuatro
    der die das den dem des ein eine einen einem einer eines er sie es wir ihr ich sein seine ihre ihr in im am an auf
    aus bei mit nach von vor zu zum zur um über unter durch für gegen ohne seit bis während als wenn weil obwohl dass
    da dann dort hier heute und oder aber auch noch nur nicht kein keine alle viele einige jeder jede jedes dieser
    diese dieses jener was wer wie wo warum welche ist sind war waren hat haben hatte kann muss soll wird wurde
    le la les un une des du de l' il elle ils elles on nous vous je ce cet cette ces son sa ses leur leurs en dans
    sur sous avec sans pour par avant après depuis pendant quand si mais et ou donc car est sont était
    el los las una unos unas su sus este esta estos estas ese esa en con sin sobre desde hasta cuando si pero y o
    es son era fue hay"""
)


def number_words(language: str) -> str:
    """An alternation of the words for numbers; one that matches nothing for a language without a list."""
    return _alternation(_NUMBERS[language]) if language in _NUMBERS else "(?!)"


PRONOUNS = _words(
    """it its he his she her they their them this these that those there here both such er sie es sein seine ihr ihre
    dies diese dieser dieses il elle ils elles ce cet cette ces leur son sa ses él ella ellos ellas su sus este esta"""
)
BARE_PRONOUNS = _words("it its he his she him her they their them er sie ihn ihm il elle ils elles él ella ellos ellas")
# for the questions that code makes from English sentences
S_VERBS = _words(
    """holds costs weighs takes pays runs keeps makes employs owns serves seats contains measures gets needs uses lasts
    sounds learns works earns burns melts sells stands lies hangs lives ends starts begins sits sleeps meets grows
    opens"""
)
OTHER_VERBS = {
    "has": "have",
    "carries": "carry",
    "teaches": "teach",
    "catches": "catch",
    "goes": "go",
    "reaches": "reach",
}
PLACED_VERBS = _words("stands lies hangs lives ends starts begins sits sleeps meets works grows opens")
PEOPLE = _words(
    """master keeper founder captain curator baker driver owner leader mayor king queen author engineer designer
    architect director president chair head treasurer coxswain stationmaster holder winner inventor teacher conductor
    builder warden doctor secretary manager minister brother sister father mother son daughter wife husband cook smith
    pilot composer painter poet abbot bishop judge clerk librarian gardener miller innkeeper guard chief deputy
    assistant apprentice commander governor chancellor editor publisher chairman chairwoman"""
)
