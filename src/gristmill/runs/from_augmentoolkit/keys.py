"""Names of its configs that have no counterpart, and why."""

from __future__ import annotations

import re

SMALL = "one small model judges the chunks for all stages: stages.suitable"
TEMPLATE = "training, export and serving use the model's own chat template, so that what is served is what was trained"
RUNPOD = "machines are not rented; `train.sft` trains where the run is: recipes/handbook.yaml shows it"
TRAINING = "this recipe ends in data; a stage train.sft has its own: recipes/handbook.yaml shows it"
HUB = "data is not pushed; a model is, by `gristmill export RUN --format hf --to FOLDER --push OWNER/NAME`"
HARVEST = "add a stage generate.harvest: recipes/writer.yaml"
SUBSETS = "the questions of all are drawn together: stages.subset, stages.questions.anchors"
GENERIC = "general chats are files here: an ingest.samples stage, and curate.mix by tokens, as in recipes/thoughts.yaml"

NOWHERE = {
    "completion_mode|.*_completion_mode": "prompts are messages; there is no completion mode",
    "use_stop|.*_use_stop": "stop strings belong to each kind",
    "use_min_p": "sampling belongs to each kind: `temperature`",
    "rp_prompt_.*": "write it into a prompt of your own: `prompts:` of stages.stories",
    "prompts|default_prompts|.*_prompts|.*_prompts_inferred": "prompts are files of each kind (`prompts:` of a stage); "
    "those of Augmentoolkit have another form",
    "output_dir|.*cache_dir|chunking_output_dir|models_dir": "a run has its own folder in the workspace",
    "phase_index|work_in_phases": "a run goes on where it ended; another model in one stage redoes what follows",
    "do_meta_datagen|meta_datagen_.*": HARVEST,
    "hub_path|private|push_to_hub|.*hub_.*|huggingface_token": HUB,
    "use_gutenberg|start_url|max_books|max_failures": "nothing is downloaded: put the files into a folder",
    "skip_.*": "there is no such stage in this recipe",
    "small_.*|.*_small_.*|.*cost.*small.*": SMALL,
    "cost_.*|.*_cost_.*": "there is no model of that size in this recipe",
    "do_train|runpod_api_key|pod_id|do_run|server_type": RUNPOD,
    "base_model|is_mistral_derived_model|context_length|other_.*_kwargs": TRAINING,
    "wandb_.*": "a tracker is a sink: sinks: {wandb: {...}}",
    "template|template_kwargs|prompt_template|.*_prompt_template|.*_format|bos": TEMPLATE,
    "generic_dataset_.*|max_samples_per_dataset|minimum_generic_sft|.*pretrain.*sft.*|.*sft_is_pretrain": GENERIC,
    "shared_instruction": "give it as one of stages.system.messages",
    "combine_sharegpt_target_pairs": "it belongs to factual-datagen-pipeline",
    "cot_preface|cot_suffix|final_answer_str|transform_generic_cot_.*": "thoughts have one form here",
    "final_assistant_prompts_rag|rag_failure_percentage": "passages come in a recipe of their own: recipes/rag.yaml",
    "conversation_instructions": "belongs to woven conversations: recipes/weave.yaml",
    ".*_chunk_size|chunk_size": "one size of chunk for all stages: stages.chunks.tokens",
    "truncation_type": "a long text is cut in its middle: stages.label.characters",
    "use_filenames": "every answer knows its document; `cite` of generate.recall names it",
    "final_system_prompt_additional_context": "give it as one of stages.system.messages",
    "keep_system_prompt": "a system message that is there stays",
    "use_subset|subset_size|.*_use_subset.*|.*_subset_size.*": SUBSETS,
    ".*_large_.*|large_.*": "another role has this model already",
    "dataset_context": "nothing of this recipe says what the documents are about",
}
"""Patterns of names, tried in order."""

UNKNOWN = "Gristmill does not know this name"


def why_not(name: str) -> str:
    return next((why for pattern, why in NOWHERE.items() if re.fullmatch(pattern, name)), UNKNOWN)
