"""From settings to the task family, or of a folder of tasks to what is wrong with it."""

from __future__ import annotations

from experiments.config import FamilySettings
from experiments.errors import UserError
from tasks.episode import TaskFamily
from tasks.sources import files, hub
from tasks.sources.builtin import builtin
from tasks.sources.folder import FolderFamily, Splits, TaskFile, read_folder
from tasks.sources.records import RecordFamily
from tasks.sources.sinusoid import Sinusoid
from tasks.splits import draw_record_splits, draw_splits, read_folds


def build_family(settings: FamilySettings) -> TaskFamily:
    """The task family that settings describe."""
    if settings.source == "builtin":
        return builtin()
    if settings.source == "sinusoid":
        return Sinusoid(settings.name, phase=settings.phase, frequency=settings.frequency)
    if settings.source == "folder":
        return build_folder(settings)
    # Where a label is, and what it is.
    columns = settings.model_dump(include={"kind", "text", "label", "text_b"})
    if settings.source == "file":
        if not settings.path:
            raise UserError("family.path is empty; name a jsonl, csv or parquet file")
        examples = files.read_examples(files.find(settings.path), **columns)
    else:
        examples = hub.load_examples(settings.path, subset=settings.subset, **columns)
    name = settings.name
    if settings.kind != "class":
        splits = draw_record_splits(examples, settings.split_seed)
        return RecordFamily(name, settings.kind, examples, splits)
    classes = {example.label for example in examples if example.label}
    if settings.test_only:
        if settings.folds:
            raise UserError(f"family {name}: all classes are of test_only, none of folds; drop one")
        return RecordFamily(name, "class", examples, {"test": tuple(sorted(classes))})
    if settings.folds:
        if not settings.fold:
            raise UserError(f"family.folds is {settings.folds}, but no family.fold; choose one")
        return RecordFamily(
            name, "class", examples, read_folds(files.find(settings.folds), settings.fold, classes)
        )
    return RecordFamily(name, "class", examples, draw_splits(classes, settings.split_seed))


def build_folder(settings: FamilySettings) -> FolderFamily:
    """The task family of a folder."""
    if settings.kind != "class":
        raise UserError(f"family.kind {settings.kind}: a folder holds tasks of kind class")
    tasks, splits = read_family(settings)
    return FolderFamily(settings.name, tasks, splits)


def read_family(
    settings: FamilySettings, problems: list[str] | None = None
) -> tuple[list[TaskFile], Splits]:
    """The tasks of a folder and their meta-splits, see `read_folder`."""
    if not settings.path:
        raise UserError("family.path is empty; name a folder that holds a file for each task")
    return read_folder(
        settings.path,
        text=settings.text,
        label=settings.label,
        text_b=settings.text_b,
        seed=settings.split_seed,
        folds=settings.folds,
        fold=settings.fold,
        problems=problems,
    )
