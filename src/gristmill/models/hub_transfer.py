"""Fetching a model from a hub, by `gristmill models get`, and sending one, by `gristmill export --push`: never unasked.

Configs, tokenizer and safetensors at the top of a repository are fetched, never pickle and never code. Every file is
checked against the size, and a large one against the sha256, that the hub states. HF_ENDPOINT and HF_TOKEN say which
hub and who asks, as for huggingface_hub itself, which does the work.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from gristmill.core.errors import ConfigError, ProviderError
from gristmill.core.files import sha256_file
from gristmill.models.hub import PREFIX, Kept, find, parts, place, require, write_note
from gristmill.models.weights import at_folder

_TAKEN = re.compile(r"[\w.-]+\.safetensors|[\w.-]+\.json|tokenizer\.model|merges\.txt|chat_template\.jinja")


def get(model: str) -> Kept:
    """Fetch a model. What a killed attempt left is taken up; a model that is there already at the commit is not fetched
    again, but a branch that has moved on is."""
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils.tqdm import disable_progress_bars

    repository, revision = parts(model)
    disable_progress_bars()
    try:
        info = HfApi().model_info(repository, revision=revision, files_metadata=True)
        files = [file for file in info.siblings or [] if _TAKEN.fullmatch(file.rfilename)]
        _refuse_unfit(model, [file.rfilename for file in files])
        known = find(f"{PREFIX}{repository}@{info.sha}")
        if known is None:
            folder = place(repository) / str(info.sha)
            for file in files:
                path = Path(hf_hub_download(repository, file.rfilename, revision=info.sha, local_dir=folder))
                _check_file(path, file)
            known = _seal(repository, str(info.sha), folder)
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        hint = "Check the name and revision; a private or gated model needs HF_TOKEN."
        raise ProviderError(
            f"the hub does not give {model}: {str(error).splitlines()[0]}", hint, status=status
        ) from error
    except OSError as error:
        raise ProviderError(f"cannot fetch {model}: {error}", "Run the same command again: it goes on.") from error
    for name in {revision, known.commit}:
        write_note(known, name)
    return require(model)


def push(folder: Path, repository: str, *, private: bool) -> str:
    """Send an exported folder to a hub, as one commit, and give the commit's address. The repository is made if it is
    not there; `private` holds for a new one."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils.tqdm import disable_progress_bars

    parts(PREFIX + repository)
    disable_progress_bars()
    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Export by Gristmill")
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        hint = "Check HF_TOKEN: it must be allowed to write there. The export itself is on disk."
        raise ProviderError(f"the hub refuses: {str(error).splitlines()[0]}", hint, status=status) from error
    except OSError as error:
        raise ProviderError(f"cannot reach the hub: {error}", "The export itself is on disk; push it again.") from error
    return str(done.commit_url)


def _refuse_unfit(model: str, names: list[str]) -> None:
    lacks = [
        what
        for what, there in {
            "config.json": "config.json" in names,
            "tokenizer.json": "tokenizer.json" in names,
            "safetensors": any(name.endswith(".safetensors") for name in names),
        }.items()
        if not there
    ]
    if lacks:
        raise ConfigError(
            f"{model} has no {' and no '.join(lacks)}", "Weights in pickle files and models of code are never fetched."
        )


def _check_file(path: Path, stated: Any) -> None:
    wrong = stated.size is not None and path.stat().st_size != stated.size
    if wrong or (stated.lfs is not None and sha256_file(path) != stated.lfs.sha256):
        path.unlink()
        raise ProviderError(f"{path.name} did not arrive whole", "Run the same command again.")


def _seal(repository: str, commit: str, folder: Path) -> Kept:
    return Kept(repository, commit, commit, folder, at_folder(folder).sha256)
