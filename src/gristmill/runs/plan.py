"""Plan: the stages of a recipe as a typed graph, in the order they run. What can be wrong is found here, free."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from gristmill.core.errors import ConfigError, GristmillError
from gristmill.core.extras import install_line, missing
from gristmill.core.prompt import Prompt, names_in, names_of, read_prompt
from gristmill.core.records import digest_of
from gristmill.core.secrets import resolve
from gristmill.core.stage import PACE, Means, Stage, StageConfig, load_code, room_of
from gristmill.llm.prices import demand_price
from gristmill.llm.spec import LocalSpec, RemoteSpec, StageSpec, fallback_of
from gristmill.models.weights import locate
from gristmill.runs.kinds import kinds
from gristmill.runs.recipe import Loaded, load_recipe
from gristmill.runs.repeat import ALL, BEFORE, called
from gristmill.runs.source import RecipeError, Where


@dataclass(frozen=True)
class Node:
    """One stage of the plan. `name` is its name in the recipe, or name.part for the parts before the last."""

    name: str
    entry: str  # the recipe's name for it
    stage: Stage
    config: StageConfig
    needs: tuple[str, ...]  # nodes whose records it takes
    waits: tuple[str, ...]  # nodes that must be done, without their records
    roles: tuple[str, ...]
    prompts: dict[str, Prompt]
    round: int = 0  # of `repeat`: 1, 2, …; 0 outside of its block

    def seed(self, recipe: int) -> int:
        """Of what it asks models: another in each round, else each would be given the answers of the first."""
        return recipe if self.round < 2 else int(digest_of([recipe, self.round])[:8], 16)

    @property
    def kind(self) -> str:
        return self.config.kind + (f"/{self.stage.part}" if self.stage.part else "")


@dataclass(frozen=True)
class Plan:
    recipe: Loaded
    nodes: tuple[Node, ...]

    def node(self, name: str) -> Node:
        return next(n for n in self.nodes if n.name == name)

    def settings(self, node: Node) -> dict[str, Any]:
        """What of a node's config decides its result: not where it stands, nor when it gives up."""
        fields = type(node.config).model_fields.items()
        pace = {name for name, info in fields if PACE in info.metadata}
        return node.config.model_dump(mode="json", exclude={"needs", "after", "prompts"} | pace)


def make_plan(
    path: Path, sets: list[str] | None = None, *, base: Path | None = None, sweeps: list[str] | None = None
) -> Plan:
    """Load a recipe and check it whole. Raises RecipeError with every problem. Relative paths start at `base`: the
    recipe's folder when not given."""
    return plan_recipe(load_recipe(path, sets, base, sweeps=sweeps))


def plan_recipe(recipe: Loaded) -> Plan:
    """The plan of a recipe that was read, checked whole."""
    every = tuple(recipe.stages.values())
    recipe = replace(recipe, stages={name: config.among(every) for name, config in recipe.stages.items()})
    plan = Plan(recipe, tuple(_sorted(recipe, _nodes(recipe))))
    if not recipe.source.problems:
        _check_types(plan)
        _check_fields(plan)
    _check_exports(recipe)
    _check_models(plan)
    if recipe.source.problems:
        raise RecipeError(recipe.source.problems)
    return plan


@dataclass(frozen=True)
class _Entry:
    """A stage as the recipe has it, before it stands in its rounds."""

    name: str
    config: StageConfig
    chain: tuple[Stage, ...]
    needs: tuple[str, ...]  # as written
    roles: tuple[str, ...]
    prompts: tuple[dict[str, Prompt], ...]  # of each stage of the chain


def _nodes(recipe: Loaded) -> list[Node]:
    """All stages in the recipe's order, the block of `repeat` once for each round."""
    entries = list(_entries(recipe))
    repeat = recipe.repeat
    block = [entry for entry in entries if repeat and entry.name in repeat.stages]
    nodes: list[Node] = []
    for entry in entries:
        if repeat is None or entry not in block:
            nodes += _in_round(recipe, entry, 0)
        elif entry is block[0]:
            nodes += [n for at in range(1, repeat.times + 1) for e in block for n in _in_round(recipe, e, at)]
    return nodes


def _entries(recipe: Loaded) -> Iterator[_Entry]:
    previous: str | None = None
    for name in recipe.named("stages"):
        config = recipe.stages.get(name)
        if config is None:  # broken, and reported: what follows it cannot be typed, but all else is checked
            previous = None
            continue
        chain = kinds()[config.kind]
        needs = _needs(recipe, name, config, chain[0], previous)
        _check_paths(recipe, name, config)
        prompts = tuple(dict(_prompts(recipe, name, config, stage)) for stage in chain)
        yield _Entry(name, config, chain, needs, tuple(_roles(recipe, name, config)), prompts)
        _check_prompt_names(recipe, name, config, chain)
        previous = name


def _in_round(recipe: Loaded, entry: _Entry, at: int) -> Iterator[Node]:
    """An entry's nodes in one round: its needs are of it, and all of the round before are waited for."""
    repeat = recipe.repeat
    name = called(entry.name, at)
    needs = tuple(n for need in entry.needs for n in (repeat.sources(need, at=at) if repeat else [need]))
    specs = [recipe.models.get(role) for role in entry.roles]
    waits = [n for s in specs if isinstance(s, StageSpec) for n in _trained(recipe, entry, s.from_, at)]
    if repeat and at > 1:
        waits += [called(other, at - 1) for other in repeat.stages if other in recipe.stages]
    for stage, prompts in zip(entry.chain, entry.prompts, strict=True):
        node_name = f"{name}.{stage.part}" if stage.part else name
        yield Node(node_name, name, stage, entry.config, needs, tuple(dict.fromkeys(waits)), entry.roles, prompts, at)
        needs = (node_name,)


def _trained(recipe: Loaded, entry: _Entry, stage: str, at: int) -> list[str]:
    """The stages that have trained a model by the time that an entry asks it; the last of them that ran did."""
    repeat = recipe.repeat
    if repeat is None or stage not in repeat.stages:
        return [stage]
    order = recipe.named("stages")
    later = at and order.index(entry.name) <= order.index(stage)
    if later and at == 1:
        said = f"it asks a model that {stage} trains later in the round: in the first there is none"
        recipe.source.problem(("stages", entry.name), said, "Move it behind that stage.")
    return repeat.sources(f"{stage}.{BEFORE if later else ALL}", at=at)


def _needs(recipe: Loaded, name: str, config: StageConfig, first: Stage, previous: str | None) -> tuple[str, ...]:
    where = ("stages", name, "needs")
    if config.needs is None:
        return (previous,) if previous and first.takes else ()
    if config.needs and not first.takes:
        recipe.source.problem(where, f"{config.kind} takes nothing from other stages", "Remove `needs`.")
    return tuple(need for need in config.needs if _is_there(recipe, name, need, where))


def _is_there(recipe: Loaded, name: str, need: str, where: Where) -> bool:
    """Whether a name in `needs` is another stage's, or a round's that this one may take; if not, it is noted."""
    order = recipe.named("stages")
    stage, _, which = need.partition(".")
    if stage not in order or (need == name):
        recipe.source.problem(where, f"`needs` names no other stage: {need}", f"Known: {', '.join(order)}.")
        return False
    block = recipe.repeat.stages if recipe.repeat else ()
    if which and not (which in (BEFORE, ALL) and {stage, name} <= set(block)):
        if recipe.repeat or "repeat" not in recipe.source.data:  # else `repeat` is broken, and reported
            hint = f"Within `repeat` there are {stage}.{BEFORE} and {stage}.{ALL}; outside, {stage} is of all rounds."
            recipe.source.problem(where, f"`needs` names no rounds: {need}", hint)
        return False
    if which != BEFORE and {stage, name} <= set(block) and order.index(stage) >= order.index(name):
        hint = f"Write {stage}.{BEFORE}: of the rounds before this one, of none in the first."
        recipe.source.problem(where, f"{stage} comes later in the round", hint)
        return False
    return stage in recipe.stages


def means(config: StageConfig, what: str) -> Iterator[tuple[str, str]]:
    """(field, value) of every field of a config that stands for a role or a path, alone or in a list or mapping."""
    for name, info in type(config).model_fields.items():
        marked = any(isinstance(m, Means) and m.what == what for m in info.metadata) or _inner(info.annotation, what)
        value = getattr(config, name)
        if not marked or value is None:
            continue
        values = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
        yield from ((name, v) for v in values)


def _inner(annotation: Any, what: str) -> bool:
    return any(
        (isinstance(part, Means) and part.what == what) or _inner(part, what)
        for part in (*get_args(annotation), *getattr(annotation, "__metadata__", ()))
        if part is not annotation
    )


def _roles(recipe: Loaded, name: str, config: StageConfig) -> Iterator[str]:
    for key, role in means(config, "role"):
        if role not in recipe.named("models"):
            names = recipe.named("models")
            known = f"Known: {', '.join(names)}." if names else "The recipe names no models."
            recipe.source.problem(("stages", name, key), f"no model is called `{role}`", known)
        else:
            yield role
            yield from fallback_of(recipe.models.get(role))


def _check_paths(recipe: Loaded, name: str, config: StageConfig) -> None:
    for key, path in means(config, "path"):
        if not (recipe.base / path).exists():
            hint = f"Paths are relative to {recipe.base}."
            recipe.source.problem(("stages", name, key), f"no such file or folder: {path}", hint)


def _prompts(recipe: Loaded, name: str, config: StageConfig, stage: Stage) -> Iterator[tuple[str, Prompt]]:
    if stage.prompt:
        yield from _recipe_prompt(recipe, name, config, stage.prompt)
    room = room_of(stage.code.partition(":")[0])
    for prompt in stage.prompts:
        own = config.prompts.get(prompt)
        shipped = read_prompt(prompt, Path(str(files(room))) / "prompts" / f"{prompt}.md")
        if own is None:
            yield prompt, shipped
        elif (recipe.base / own).exists():  # a missing path is reported already
            yield from _own_prompt(recipe, ("stages", name, "prompts", prompt), shipped, recipe.base / own)


def _recipe_prompt(recipe: Loaded, name: str, config: StageConfig, code: str) -> Iterator[tuple[str, Prompt]]:
    """The prompt that a stage's entry brings, by the name it has."""
    if not all((recipe.base / path).exists() for _, path in means(config, "path")):
        return  # reported already
    try:
        prompt = load_code(code)(config, recipe.base)
        yield prompt.name, prompt
    except ConfigError as error:
        recipe.source.problem(("stages", name, "prompt"), error.message, error.hint)


def _own_prompt(recipe: Loaded, where: Where, shipped: Prompt, path: Path) -> Iterator[tuple[str, Prompt]]:
    """A recipe's prompt in place of a shipped one: it may use the names that the shipped one uses."""
    try:
        own = read_prompt(shipped.name, path)
    except ConfigError as error:
        recipe.source.problem(where, error.message, error.hint)
        return
    unknown = own.names - shipped.names
    if unknown:
        known = f"Known: {', '.join(sorted(shipped.names))}."
        recipe.source.problem(where, f"{path.name} uses unknown names: {', '.join(sorted(unknown))}", known)
    yield shipped.name, own


def _check_prompt_names(recipe: Loaded, name: str, config: StageConfig, chain: tuple[Stage, ...]) -> None:
    known = [p for stage in chain for p in stage.prompts]
    for prompt in config.prompts.keys() - set(known):
        hint = f"It has: {', '.join(known)}." if known else "It has none."
        recipe.source.problem(("stages", name, "prompts", prompt), f"{config.kind} has no prompt `{prompt}`", hint)


def _sorted(recipe: Loaded, nodes: list[Node]) -> Iterator[Node]:
    """Each node after what it needs, otherwise in the recipe's order."""
    done: set[str] = set()
    left = list(nodes)
    while left:
        ready = next((n for n in left if all(d in done for d in (*n.needs, *n.waits))), None)
        if ready is None:
            names = sorted({n.entry for n in left})
            unknown = {w for n in left for w in n.waits} - {n.name for n in nodes}
            if not unknown:  # an unknown stage behind a model is reported by _check_models
                recipe.source.problem(("stages", names[0]), f"these stages wait for each other: {', '.join(names)}")
            return
        left.remove(ready)
        done.add(ready.name)
        yield ready


def _check_types(plan: Plan) -> None:
    for node in plan.nodes:
        if not node.stage.takes:
            continue
        where = ("stages", node.entry)
        if not node.needs:
            plan.recipe.source.problem(where, f"{node.kind} needs the output of a stage before it", "Add `needs`.")
        for need in node.needs:
            giver = plan.node(need)
            if node.round > 1 and (giver.round != 1 or node.round > 2):
                continue  # said of the first round, or of what the second takes of it
            given = giver.config.given(giver.stage.gives)
            wrong = [t.__name__ for t in given if not issubclass(t, node.stage.takes)]
            if wrong:
                takes = " or ".join(t.__name__ for t in node.stage.takes)
                said = f"{node.kind} takes {takes}, but {need} ({giver.kind}) gives {' and '.join(wrong)}"
                plan.recipe.source.problem(where, said, "Set `needs` to a stage that gives it.")


def _check_fields(plan: Plan) -> None:
    """What a prompt names stands in the records it is filled from, followed from stage to stage without running one.

    A stage's `fields` gets the names known of what it takes (None: nobody can know yet) and gives the names of what it
    gives; it raises where the recipe names what is not there."""
    known: dict[str, frozenset[str] | None] = {}
    for node in plan.nodes:
        before = names_in([known[need] for need in node.needs])
        known[node.name] = names_in([names_of(kind) for kind in node.config.given(node.stage.gives)])
        if not node.stage.fields:
            continue
        try:
            known[node.name] = load_code(node.stage.fields)(node.config, plan.recipe.base, before)
        except GristmillError as error:
            plan.recipe.source.problem(("stages", node.entry), error.message, error.hint)


def _check_exports(recipe: Loaded) -> None:
    """A folder below the run's exports/ is one stage's: the next to write there would clear it."""
    writers: dict[str, str] = {}
    for stage, config in recipe.stages.items():
        for key, folder in means(config, "export"):
            if (first := writers.setdefault(folder, stage)) != stage:
                said = f"{first} and {stage} both write exports/{folder}: the second would clear what the first wrote"
                hint = f"Set {key} of {first} or of {stage} to a name of its own."
                recipe.source.problem(("stages", stage, key), said, hint)


def _check_models(plan: Plan) -> None:
    """Every model that a stage uses can be found: weights on disk, variables set, stages that train."""
    recipe = plan.recipe
    for node in plan.nodes:
        for extra in node.stage.extras:
            _check_extra(recipe, ("stages", node.entry), extra)
    named = {role for config in recipe.stages.values() for _, role in means(config, "role")}
    used = named.union(*(fallback_of(recipe.models.get(role)) for role in named))
    for name, spec in recipe.models.items():
        where = ("models", name)
        if name not in used:
            continue
        if isinstance(spec, StageSpec):
            if spec.from_ in recipe.named("stages") and spec.from_ not in recipe.stages:
                continue  # broken, and reported
            config = recipe.stages.get(spec.from_)
            if config is None or "Checkpoint" not in [t.__name__ for t in kinds()[config.kind][-1].gives]:
                recipe.source.problem(where, f"`from: {spec.from_}` names no stage that trains a model")
            continue
        if isinstance(spec, LocalSpec):
            _check_extra(recipe, where, "local")
        try:
            _find_model(spec, recipe.base)
            if recipe.budget.usd is not None:
                demand_price(name, spec)
        except GristmillError as error:
            recipe.source.problem(where, error.message, error.hint)


def _check_extra(recipe: Loaded, where: Where, extra: str) -> None:
    if gone := missing(extra):
        recipe.source.problem(where, f"not installed: {', '.join(gone)}", install_line(extra))


def _find_model(spec: RemoteSpec | LocalSpec, base: Path) -> None:
    """Raise what would be raised when it is first asked: a variable that is not set, weights that are not there."""
    if isinstance(spec, LocalSpec):
        locate(spec.model, base=base)
        return
    spec.url()
    if spec.api_key:
        resolve(spec.api_key)
