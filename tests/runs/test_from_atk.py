"""Configs of Augmentoolkit become recipes that `check` finds sound, and no name of them is dropped silently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from gristmill.cli.app import app
from gristmill.core.errors import ConfigError
from gristmill.runs.from_augmentoolkit.convert import Converted, convert
from gristmill.runs.from_augmentoolkit.keys import UNKNOWN
from gristmill.runs.from_augmentoolkit.pipelines import BUILDERS
from gristmill.runs.plan import Plan, make_plan

API = """
api:
  large_model: big/model
  large_api_key: {key}
  large_base_url: https://llm.example.org/v1
  large_mode: api
  small_model: little/model
  small_base_url: https://llm.example.org/v1
  small_api_key: !!PLACEHOLDER!!
  small_mode: api
path:
  default_prompts: ./prompts
  input_dir: ./inputs/facts
  output_dir: ./outputs/x
  prompts: ./prompt_overrides/negative
cost:
  cost_per_million_small_input: 0.15
  cost_per_million_small_output: 0.2
  cost_per_million_large_input: 0.23
  cost_per_million_large_output: 0.4
""".replace("{key}", "sk" + "-not-to-be-copied")
SYSTEM = """
system:
  chunk_size: 1234
  completion_mode: False
  concurrency_limit: 17
  use_stop: True
  subset_size: 9
  use_subset: True
"""
PROMPTS = "  final_assistant_prompts_no_rag: ['You know {context}.', 'An expert of {context_lowercase}.']\n"
CONFIGS = {
    "repvar-pipeline": API
    + SYSTEM
    + """
  variation_generator_count: 4
  make_inferred_facts: True
dataset:
  dataset_context: The Island
  include_context_in_dataset: True
  code_variation_functions: [keyboard_augmentation, allcaps]
""",
    "recall-multi-source-pipeline": API
    + SYSTEM
    + PROMPTS
    + "  items_per_conversation: 3\ndataset_context: The Island\n",
    "factual-gen-indiv-pipeline": API
    + SYSTEM
    + "  double_check_counter: 3\n  do_not_use_system_prompts: True\n  conversation_instructions: As two friends do.\n"
    + "skip:\n  skip_answer_accuracy_check: True\n  skip_repair_qa_tuples: False\n",
    "rag-data-pipeline": API
    + SYSTEM
    + "  rag_failure_percentage: 0.4\n  rag_max_chunks: 2\n  num_items_per_group: 3\n  bos: <s>\n"
    + "  final_assistant_prompts: ['Use this:\n\n  {data}']\n",
    "correction-pipeline": API + SYSTEM,
    "generic-data-rephrase-pipeline": API + SYSTEM + "  cot_preface: 'Thought Process:'\n",
    "pdf-clean-convert-pipeline": API + SYSTEM,
    "classifier-creator-pipeline": API
    + SYSTEM
    + """
  required_accuracy: 0.9
classification:
  classes: [infantry, cavalry, neither]
  desc: 'What part of an army a text is about: 0. "infantry", 1. "cavalry", 2. "neither".'
  predict_on_whole_set_at_the_end: True
training:
  max_iters: 5
  model_path: distilbert-base-uncased
  test_set_size: 10
  train_set_increment: 40
  train_set_size: 40
  truncation_type: head-tail
""",
    "rptoolkit-pipeline": API
    + SYSTEM
    + "  emotions: [FEAR, TRUST]\n  pick_emotion: False\n  include_chunk_in_prompt: True\n"
    + "  to_include_features: [Initiating Event, Genre Tags]\n"
    + "meta_datagen:\n  do_meta_datagen: True\n  meta_datagen_keys: [story_details]\n"
    + "archetypes:\n  generate_archetype: False\n  archetypes: ['THE HERO: bold', 'THE SAGE: wise']\n",
    "factual-datagen-pipeline": """
no_flatten: [factual_sft, input_dirs]
path:
  input_dirs:
    - {path: ./inputs/facts, variation_generation_counts: 4, factual_gen_use_subset: True,
       factual_gen_subset_size_per_way: 30}
    - {path: ./inputs/more, variation_generation_counts: 2}
  output_dir: ./outputs/x
system:
  number_of_factual_sft_generations_to_do: 2
  remove_system_prompt_ratio: 0.3
  remove_thought_process_ratio: 0.1
  remove_thought_process_prompt: Answer at once.
  generic_thought_process_on_domain_data: True
  cite_sources_at_end: True
  concurrency_limit: 100
  shared_instruction: You are capable.
  num_tokens_pretraining_in_sft: 2000000
pdf_cleaning:
  pdf_cleaning_small_model: reader/model
  pdf_cleaning_small_base_url: https://llm.example.org/v1
representation_variation:
  representation_variation_large_model: big/model
  representation_variation_large_base_url: https://llm.example.org/v1
  code_variation_functions: [keyboard_augmentation]
factual_sft:
  openended: {prompts: prompt_overrides/openended, multi_source: True}
  hallucination: {prompts: prompt_overrides/hallucination, multi_source: True}
factual_sft_settings:
  factual_chunk_size: 3000
  factual_small_model: little/model
  factual_large_model: big/model
  factual_large_base_url: https://llm.example.org/v1
  final_assistant_prompts_no_rag: ['You know {context}.']
  items_per_conversation: 3
dataset_context: The Island
rag_data:
  rag_failure_percentage: 0.5
  rag_large_model: other/model
  rag_large_base_url: https://llm.example.org/v1
  final_assistant_prompts: ['About {context}: {data}']
model_auto_train:
  do_train: True
  runpod_api_key: !!PLACEHOLDER!!
""",
}


@pytest.fixture
def atk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of Augmentoolkit, with inputs."""
    monkeypatch.setenv("LLM_KEY", "none")
    monkeypatch.setenv("LLM_URL", "https://llm.example.org/v1")
    for name in ("facts", "more"):
        (tmp_path / "atk" / "inputs" / name).mkdir(parents=True)
        (tmp_path / "atk" / "inputs" / name / "chats.jsonl").write_text("{}", "utf-8")
    (tmp_path / "atk" / "external_configs").mkdir()
    return tmp_path / "atk"


def converted(atk: Path, pipeline: str, text: str | None = None) -> tuple[Converted, dict[str, Any]]:
    path = atk / "external_configs" / "my_config.yaml"
    path.write_text(f"pipeline: {pipeline}\n{CONFIGS[pipeline] if text is None else text}", "utf-8")
    made = convert(path, atk.parent / "mine")
    return made, yaml.safe_load(made.recipe)


def planned(atk: Path, made: Converted) -> Plan:
    path = atk.parent / "mine" / "recipe.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(made.recipe, "utf-8")
    return make_plan(path)


def test_every_pipeline_that_converts_is_tried_here() -> None:
    assert set(CONFIGS) == set(BUILDERS)


@pytest.mark.parametrize("pipeline", CONFIGS)
def test_a_config_becomes_a_sound_recipe_and_every_name_is_accounted_for(atk: Path, pipeline: str) -> None:
    made, recipe = converted(atk, pipeline)
    assert planned(atk, made).nodes
    config = yaml.safe_load(CONFIGS[pipeline].replace("!!PLACEHOLDER!!", "''"))
    whole = config.get("no_flatten", [])
    names = {
        f"{section}.{name}" if isinstance(inner, dict) and section not in whole else section
        for section, inner in config.items()
        if section != "no_flatten"
        for name in (inner if isinstance(inner, dict) else [section])
    }
    assert names <= made.carried.keys() | made.left.keys()
    assert UNKNOWN not in made.left.values()
    assert all(place.split(".")[-1] in made.recipe for place in made.left)  # each stands above the recipe
    assert "not-to-be-copied" not in made.recipe and "env:LLM_KEY" in made.recipe
    assert "not-to-be-copied" not in "".join(made.carried.values())
    prices = [spec.get("price") for spec in recipe["models"].values() if spec.get("model") == "big/model"]
    assert prices == ([{"input": 0.23, "output": 0.4}] if "api:" in CONFIGS[pipeline] else [None]) or not prices


def test_what_is_said_in_other_words_comes_out_as_meant(atk: Path) -> None:
    sources, recall = converted(atk, "recall-multi-source-pipeline")
    assert recall["stages"]["chunks"]["tokens"] == 1234
    assert "subset" not in recall["stages"] and recall["stages"]["questions"]["anchors"] == 9  # neighbours are of all
    assert sources.carried["system.use_subset"] == "stages.questions.anchors" == sources.carried["system.subset_size"]
    _, variations = converted(atk, "repvar-pipeline")
    assert variations["stages"]["subset"]["chunks"] == 9
    assert recall["stages"]["questions"]["ways"] == ["false_premise"]
    assert recall["stages"]["system"]["messages"][1] == "An expert of {{context_lowercase}}."
    assert recall["stages"]["system"]["context"]["context_lowercase"] == "the island"
    assert recall["stages"]["system"]["drop"] == 0  # only the composition drops some
    assert recall["models"]["writer"]["concurrency"] == 17
    assert recall["stages"]["read"]["paths"] == ["../atk/inputs/facts"]
    plain, judged = converted(atk, "factual-gen-indiv-pipeline")
    assert judged["stages"]["judged"]["checks"] == ["sound", "relevant"] and judged["stages"]["judged"]["votes"] == 3
    assert "generate.recall" in plain.left["path.prompts"]
    assert "repaired" in judged["stages"] and judged["stages"]["talks"]["tones"] == ["As two friends do."]
    own, asked = converted(atk, "recall-multi-source-pipeline", API.replace("prompt_overrides/negative", "mine"))
    assert asked["stages"]["questions"]["ways"] == ["open"] and "mine" in own.left["path.prompts"]
    _, varied = converted(atk, "repvar-pipeline")
    assert varied["stages"]["typos"]["ways"] == ["typos", "upper"] and "inferred" in varied["stages"]
    _, rag = converted(atk, "rag-data-pipeline")
    assert (rag["stages"]["rag"]["failed"], rag["stages"]["rag"]["instruction"]) == (0.4, "Use this:")
    sorting, classifier = converted(atk, "classifier-creator-pipeline")
    assert classifier["repeat"]["until"] == "agree.low >= 0.9" and classifier["repeat"]["times"] == 6
    assert "lower end" in sorting.carried["system.required_accuracy"]
    assert "no causal model" in sorting.left["training.model_path"]
    assert "training.model_path" not in sorting.carried
    _, story = converted(atk, "rptoolkit-pipeline")
    assert story["stages"]["harvest"]["needs"] == ["rating"] and story["stages"]["lessons"]["kind"] == "curate.export"
    tiers = [stage.get("where") for stage in story["stages"].values() if stage.get("needs") == ["rating"]]
    assert tiers[:3] == [None, {"judge_quality": ["good", "incredible"]}, {"judge_quality": ["incredible"]}]
    assert story["stages"]["features"]["fields"]["archetype"] == ["THE HERO", "THE SAGE"]


def test_questions_are_joined_before_a_system_message_stands_above_them(atk: Path) -> None:
    made, recipe = converted(atk, "recall-multi-source-pipeline")
    assert list(recipe["stages"])[-3:] == ["talks", "system", "dataset"] and recipe["stages"]["talks"]["turns"] == 3
    assert made.carried["system.items_per_conversation"] == "stages.talks.turns"
    text = CONFIGS["factual-datagen-pipeline"] + "combination:\n  combine_sharegpt_target_pairs: 5\n"
    made, recipe = converted(atk, "factual-datagen-pipeline", text)
    assert planned(atk, made).node("system").needs == ("talks",) and recipe["stages"]["talks"]["turns"] == 5
    assert made.carried["combination.combine_sharegpt_target_pairs"] == "stages.talks.turns"
    assert "combine_sharegpt_target_pairs says" in made.left["factual_sft_settings.items_per_conversation"]
    text = CONFIGS["factual-gen-indiv-pipeline"] + "joined:\n  items_per_conversation: 4\n"
    made, recipe = converted(atk, "factual-gen-indiv-pipeline", text)
    assert recipe["stages"]["talks"]["kind"] == "generate.weave" and "joined.items_per_conversation" in made.left
    assert "joined.items_per_conversation" not in made.carried
    made, recipe = converted(atk, "factual-gen-indiv-pipeline", text + "skip_conversation_generation: True\n")
    assert recipe["stages"]["talks"] == {"kind": "curate.converse", "turns": 4} and planned(atk, made).nodes


@pytest.mark.parametrize(
    ("ways", "asked"),
    [
        ("[openended, negative]", {"grounded": ["open"], "doubtful": ["false_premise"]}),
        ("[vague, followup]", {"grounded": ["vague", "followup"]}),
        ("[negative, hallucination]", {"questions": ["false_premise", "unanswerable"]}),
    ],
)
def test_what_a_source_must_hold_is_held_against_it(atk: Path, ways: str, asked: dict[str, list[str]]) -> None:
    before, _, after = CONFIGS["factual-datagen-pipeline"].partition("factual_sft:\n")
    text = f"{before}factual_sft: {ways}\nfactual_sft_settings:{after.partition('factual_sft_settings:')[2]}"
    made, recipe = converted(atk, "factual-datagen-pipeline", text)
    plan = planned(atk, made)
    assert list(plan.node("filter").needs) == list(asked)
    for stage, named in asked.items():
        asks = plan.node(stage).needs[0] if stage == "grounded" else stage
        assert recipe["stages"][asks]["ways"] == named
    assert recipe["stages"].get("grounded") in (None, {"kind": "curate.ground", "question": False})


def test_the_composition_keeps_one_role_a_model_and_one_setting_for_all_folders(atk: Path) -> None:
    made, recipe = converted(atk, "factual-datagen-pipeline")
    assert {name: spec["model"] for name, spec in recipe["models"].items()} == {
        "writer": "big/model", "rag_writer": "other/model", "cleaner": "reader/model", "reader": "little/model",
    }  # fmt: skip
    stages = recipe["stages"]
    assert stages["read"]["paths"] == ["../atk/inputs/facts", "../atk/inputs/more"]
    assert stages["questions"] | {"needs": []} == {
        "kind": "generate.recall", "model": "writer", "ways": ["open"], "thoughts": True, "cite": True,
        "per_chunk": 2, "anchors": 30, "needs": [],
    }  # fmt: skip
    assert (
        made.carried["path.input_dirs[0].factual_gen_use_subset"] == "stages.questions.anchors, stages.doubtful.anchors"
    )
    assert stages["doubtful"] == stages["questions"] | {"ways": ["unanswerable"]}
    assert made.carried["factual_sft"] == "stages.questions.ways, stages.doubtful.ways"
    assert stages["system"]["drop"] == 0.3 and stages["system"]["at_once"] == "Answer at once."
    assert "path.input_dirs[1].variation_generation_counts" in made.left
    assert "factual_sft.openended.multi_source" in made.left
    assert made.carried["representation_variation.representation_variation_large_model"] == "models.writer.model"
    assert "model_auto_train.do_train" in made.left and "system.shared_instruction" in made.left
    assert stages["chunks"]["kind"] == "ingest.chunk" and list(stages).index("mended") < list(stages).index("chunks")


@pytest.mark.parametrize("pipeline", CONFIGS)
def test_the_harvest_takes_all_that_is_exported(atk: Path, pipeline: str) -> None:
    text = (
        CONFIGS[pipeline].replace("meta_datagen:\n  do_meta_datagen: True\n", "meta:\n") + "\ndo_meta_datagen: True\n"
    )
    made, recipe = converted(atk, pipeline, text)
    assert planned(atk, made).nodes
    taken = recipe["stages"]["harvest"]["needs"]
    if pipeline == "factual-datagen-pipeline":
        assert taken == ["corpus", "typos", "system", "groups", "sound"]
    if pipeline == "classifier-creator-pipeline":
        assert taken == ["rules", "label"]


def test_a_composition_says_what_it_does_with_every_setting_of_its_folders_and_cleans_only_where_asked(
    atk: Path,
) -> None:
    text = CONFIGS["factual-datagen-pipeline"] + (
        "correction_pipeline:\n  correction_use_subset: False\ndo_not_use_llm_for_pdf_processing: True\n"
        "model_training:\n  context_length: 10000\n  models_dir: ./models\n"
    )
    text = text.replace("factual_gen_use_subset: True,", "factual_gen_use_subset: True, correction_use_subset: True,")
    made, recipe = converted(atk, "factual-datagen-pipeline", text)
    assert "path.input_dirs[0].correction_use_subset" in made.left and UNKNOWN not in made.left.values()
    assert "mended" not in recipe["stages"] and "cleaner" not in recipe["models"]
    assert "pdf_cleaning.pdf_cleaning_small_model" in made.left
    assert made.carried["do_not_use_llm_for_pdf_processing"] == "stages.mended is left out"
    without = text.replace("factual_large_model: big/model", "").replace("Answer at once.", "")
    made, recipe = converted(atk, "factual-datagen-pipeline", without)
    assert recipe["models"]["writer"]["model"] == "???" and recipe["stages"]["questions"]["model"] == "writer"
    assert "drop_thoughts" not in recipe["stages"]["system"]
    assert "system.remove_thought_process_ratio" in made.left.keys() - made.carried.keys()


def test_what_is_off_is_not_said_to_be_there(atk: Path) -> None:
    text = API + "skip:\n  skip_filter_chunks: True\nuse_subset: False\ndo_meta_datagen: False\n"
    made, recipe = converted(atk, "correction-pipeline", text)
    assert not {"suitable", "subset", "harvest"} & recipe["stages"].keys()
    off = ("skip.skip_filter_chunks", "use_subset", "do_meta_datagen")
    assert all(made.carried[place].endswith("is left out") for place in off)
    story, roles = converted(atk, "rptoolkit-pipeline", API + "include_chunk_in_prompt: False\nrp_prompt_start: Hi\n")
    assert roles["stages"]["stories"]["source"] is False and "prompts:" in story.left["rp_prompt_start"]
    sorts, _ = converted(atk, "classifier-creator-pipeline", API + "train_set_size: 40\ntrain_set_increment: 20\n")
    assert "train_set_increment" in sorts.left and "train_set_increment" not in sorts.carried


def test_one_text_is_a_list_of_one_and_a_path_a_folder(atk: Path) -> None:
    text = "no_flatten: [factual_sft, input_dirs]\ninput_dirs: {}\nfactual_sft: [vague]\nfactual_chunk_size: 300\n"
    for given, paths in (("./inputs/facts", 1), ("[./inputs/facts, ./inputs/more]", 2)):
        _, recipe = converted(atk, "factual-datagen-pipeline", text.format(given))
        assert recipe["stages"]["read"]["paths"] == ["../atk/inputs/facts", "../atk/inputs/more"][:paths]
        assert recipe["stages"]["questions"]["ways"] == ["vague"]
    _, recipe = converted(atk, "recall-multi-source-pipeline", "final_assistant_prompts_no_rag: You know all.\n")
    assert recipe["stages"]["system"]["messages"] == ["You know all."]


def test_texts_begin_with_their_place_only_where_it_is_asked_for(atk: Path) -> None:
    _, recipe = converted(atk, "repvar-pipeline", API + "include_context_in_dataset: False\n")
    assert [recipe["stages"][name]["context"] for name in ("passages", "statements", "forms")] == [False] * 3


def test_a_config_that_is_none_says_where(atk: Path) -> None:
    typos = "dataset:\n  code_variation_functions: [allcaps, mine]\n"
    made, recipe = converted(atk, "repvar-pipeline", API + typos)
    assert recipe["stages"]["typos"]["ways"] == ["upper"]
    assert "dataset.code_variation_functions.mine" in made.left
    for text, said in (
        ("variation_generator_count: many\n", "is no number"),
        ("variation_generator_count: !!PLACEHOLDER!!\n", "is no number"),
        ("system:\n  input_dir: ./twice\n", "input_dir twice"),
        ("system:\n  chunk_size: 1\n  chunk_size: 2\n", "my_config.yaml says chunk_size twice"),
        ("cost: {}\n", "my_config.yaml says cost twice"),
        ("dataset_context: [one, two]\n", r"dataset_context is no text: \['one', 'two'\]"),
        ("dataset:\n  dataset_context: {of: one}\n", "dataset.dataset_context is no text"),
    ):
        with pytest.raises(ConfigError, match=said):
            converted(atk, "repvar-pipeline", API + text)


def test_a_placeholder_blocks_the_run_and_an_unknown_name_is_listed(atk: Path) -> None:
    text = API.replace("big/model", "!!PLACEHOLDER!!").replace("./inputs/facts", "./inputs/!!PLACEHOLDER!!")
    made, recipe = converted(atk, "correction-pipeline", f"{text}\nmine:\n  something_else: 3\n")
    assert recipe["models"]["writer"]["model"] == "???" and recipe["stages"]["read"]["paths"] == ["???"]
    assert made.left["mine.something_else"] == UNKNOWN and "something_else" in made.recipe
    with pytest.raises(ConfigError, match="still a placeholder"):
        planned(atk, made)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pipeline: grpo-rl-pipeline", "is no recipe here"),
        ("pipeline: nobody", "is no recipe here"),
        ("paths: {}", "names no `pipeline:`"),
        ("pipeline: !!python/name:os.system x", "cannot read"),
        ("pipeline: [", "cannot read"),
    ],
)
def test_what_is_no_recipe_is_said(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "config.yaml").write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=said):
        convert(tmp_path / "config.yaml", tmp_path / "mine")


def test_init_writes_the_recipe_and_tells_the_whole_account(atk: Path) -> None:
    made, _ = converted(atk, "correction-pipeline")
    mine = atk.parent / "mine"
    path = atk / "external_configs" / "my_config.yaml"
    told = CliRunner().invoke(app, ["init", str(mine), "--from-augmentoolkit", str(path)])
    assert told.exit_code == 0, told.output
    for place in (*made.carried, *made.left):
        assert place in told.output
    assert (mine / "recipe.yaml").read_text("utf-8") == made.recipe and (mine / ".env.example").exists()


@pytest.mark.parametrize("pipeline", ["repvar-pipeline", "recall-multi-source-pipeline", "rag-data-pipeline"])
def test_a_context_that_is_a_number_is_a_text(atk: Path, pipeline: str) -> None:
    prompts = "final_assistant_prompts: ['Of {context}: {data}']\n"
    made, recipe = converted(atk, pipeline, API + "system:\n" + PROMPTS + prompts + "dataset_context: 1984\n")
    assert "1984" in {
        "repvar-pipeline": lambda stages: stages["forms"]["about"],
        "recall-multi-source-pipeline": lambda stages: stages["system"]["context"]["context"],
        "rag-data-pipeline": lambda stages: stages["rag"]["instruction"],
    }[pipeline](recipe["stages"])
    assert planned(atk, made).nodes


def test_an_instruction_names_the_context_as_its_prompt_does(atk: Path) -> None:
    prompts = "final_assistant_prompts: ['{context}, {context_lowercase}, {context_uppercase}: {data}']\n"
    _, recipe = converted(atk, "rag-data-pipeline", API + prompts + "dataset_context: The Island\n")
    assert recipe["stages"]["rag"]["instruction"] == "The Island, the island, THE ISLAND:"
    _, recipe = converted(atk, "rag-data-pipeline", API + prompts)
    assert recipe["stages"]["rag"]["instruction"] == "???"
    made, _ = converted(atk, "rag-data-pipeline", API + "dataset_context: The Island\n")
    assert "dataset_context" in made.left.keys() - made.carried.keys()


@pytest.mark.parametrize(
    ("sides", "price"),
    [
        ("0.23 0.4", {"input": 0.23, "output": 0.4}),
        ("'0.23' '0.4'", {"input": 0.23, "output": 0.4}),
        ("0 0", {"input": 0.0, "output": 0.0}),
        ("0.23 ", None),
        ("0.23 cheap", None),
        ("0.23 true", None),
        ("'nan' 0.4", None),
        ("'' 0.4", None),
    ],
)
def test_a_price_is_carried_whole_or_not_at_all(atk: Path, sides: str, price: dict[str, float] | None) -> None:
    said = dict(zip(("input", "output"), sides.split(" "), strict=True))
    text = API.partition("cost:")[0] + "cost:\n"
    text += "".join(f"  cost_per_million_large_{side}: {value}\n" for side, value in said.items() if value)
    made, recipe = converted(atk, "correction-pipeline", text)
    assert recipe["models"]["writer"].get("price") == price and planned(atk, made).nodes
    places = {f"cost.cost_per_million_large_{side}" for side, value in said.items() if value}
    assert places <= (made.carried if price else made.left).keys()
    assert not places & (made.left if price else made.carried).keys()


def test_several_folders_of_input_are_several_paths(atk: Path) -> None:
    for pipeline, stage in (("correction-pipeline", "read"), ("generic-data-rephrase-pipeline", "chats")):
        text = API.replace("./inputs/facts", "[./inputs/facts, ./inputs/more]")
        made, recipe = converted(atk, pipeline, text)
        assert recipe["stages"][stage]["paths"] == ["../atk/inputs/facts", "../atk/inputs/more"]
        assert planned(atk, made).nodes
