"""The kinds of this room and what a recipe may say about them. Import-light: `check` and `--help` load it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gristmill.core.records import Chunk, Document, Draft, File, Sample
from gristmill.core.stage import STAGES as StageTable
from gristmill.core.stage import InputPath, Stage, StageConfig


class FilesConfig(StageConfig):
    """Which files a stage reads."""

    paths: Annotated[list[InputPath], Field(min_length=1)] = Field(description="Files and folders to read")
    include: list[str] = Field(["**"], description="Globs a file's path below its folder must match (one of them)")
    exclude: list[str] = Field([], description="Globs of files to leave out")
    max_mb: float = Field(200, gt=0, description="Size of a file, and of an archive once unpacked (times four)")

    @property
    def most_files(self) -> int | None:
        """Only the first so many, in order of their paths."""
        return None


class ReadConfig(FilesConfig):
    """Files and folders in, documents out."""

    limit: int | None = Field(None, ge=1, description="Read only the first so many files, in order of their paths")
    language: str | None = Field(
        None, pattern=r"^[a-z]{2}$", description="ISO 639-1; found from the text when not given"
    )
    text_field: str | None = Field(
        None, description="jsonl: the field that holds the text; all string fields if not given"
    )
    ocr: bool = Field(True, description="Read pages without text by tesseract, where it is installed")
    ocr_language: str = Field("eng", pattern=r"^[A-Za-z_+]+$", description="tesseract's name of the language of scans")
    memory_mb: int = Field(1024, ge=256, description="Memory a reader may use")
    seconds: float = Field(60, gt=0, description="Time a file may take; begins again at each page that needs OCR")
    max_pages: int = Field(5000, ge=1, description="Pages, slides or sheets a file may have")

    @property
    def most_files(self) -> int | None:
        return self.limit


class RowsConfig(FilesConfig):
    """Tables in, one record for each row out: jsonl, json, csv, tsv, each also .gz or .zst, and parquet."""

    columns: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="Columns to keep; a row without one of them is rejected. All if not given"
    )
    limit: int | None = Field(None, ge=1, description="Read only the first so many rows")
    delimiter: str | None = Field(
        None, min_length=1, max_length=1, description="csv: what stands between two cells; seen in the first line"
    )
    max_row_mb: float = Field(8, gt=0, le=256, description="Size of a row")
    max_mb: float = Field(1e6, gt=0, description="Size of a file")


Form = Literal[
    "auto", "preference", "rating", "openai", "sharegpt", "alpaca", "completion", "labelled", "text"
]  # fmt: skip


class SamplesConfig(RowsConfig):
    """Files of training data, one sample for each row out: jsonl, json, csv, tsv (also .gz or .zst), and parquet."""

    format: Form = Field("auto", description="What a row is; auto: the first of these whose columns it has")
    names: dict[str, str] = Field(
        default_factory=dict, description="This table's names of columns that have another name here: {text: content}"
    )
    split: Literal["train", "validation", "test"] | None = Field(
        None, description="Mark of rows that have no column `split`"
    )
    language: str = Field("en", pattern=r"^[a-z]{2}$", description="ISO 639-1, of rows without a column `language`")
    sample_kind: str = Field("given", min_length=1, description="Kind of rows that have no column `kind`")


class ChunkConfig(StageConfig):
    """Documents in, chunks of whole paragraphs out."""

    tokens: int = Field(400, ge=16, description="Most tokens a chunk may hold")
    overlap: int = Field(0, ge=0, description="Tokens of whole sentences repeated from the chunk before")
    tokenizer: str = Field(
        "smollm2-135m-instruct", description="Whose tokens: catalogue or hub name, GGUF path, model or tokenizer folder"
    )


class SubsetConfig(StageConfig):
    """Some chunks of many, drawn by the recipe's seed: what a large corpus may cost is capped here."""

    chunks: int = Field(ge=1, description="How many to keep")


def _listing(config: type[StageConfig]) -> Stage:
    """The first stage of all that reads files: which there are."""
    return Stage(
        code="gristmill.ingest.files:run",
        config=config,
        takes=(),
        gives=(File,),
        shape="pass",
        part="files",
        inputs="gristmill.ingest.files:inputs",
    )


STAGES: StageTable = {
    "ingest.read": (
        _listing(ReadConfig),
        Stage(
            code="gristmill.ingest.read:run",
            config=ReadConfig,
            takes=(File,),
            gives=(Document,),
            libraries=(
                *("charset-normalizer", "lxml", "mammoth", "markdown-it-py", "openpyxl", "py3langid"),
                *("pypdfium2", "python-pptx", "trafilatura"),
            ),
            programs=("tesseract",),
        ),
    ),
    "ingest.rows": (
        _listing(RowsConfig),
        Stage(
            code="gristmill.ingest.rows:run",
            config=RowsConfig,
            takes=(File,),
            gives=(Draft,),
            shape="pass",
            fields="gristmill.ingest.rows:fields",
            libraries=("pyarrow",),
        ),
    ),
    "ingest.samples": (
        _listing(SamplesConfig),
        Stage(
            code="gristmill.ingest.samples:run",
            config=SamplesConfig,
            takes=(File,),
            gives=(Sample,),
            shape="pass",
            fields="gristmill.ingest.samples:fields",
            libraries=("pyarrow",),
        ),
    ),
    "ingest.chunk": (
        Stage(
            code="gristmill.ingest.chunk:run",
            config=ChunkConfig,
            takes=(Document,),
            gives=(Chunk,),
            inputs="gristmill.ingest.tokenizer:inputs",
        ),
    ),
    "ingest.subset": (
        Stage(code="gristmill.ingest.subset:run", config=SubsetConfig, takes=(Chunk,), gives=(Chunk,), shape="pass"),
    ),
}
