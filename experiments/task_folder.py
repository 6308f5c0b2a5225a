"""From settings to the task family of a folder, or to what is wrong with it."""

from __future__ import annotations

from experiments.config import FamilySettings
from experiments.errors import UserError
from tasks.sources.folder import FolderFamily, Splits, TaskFile, read_folder


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
