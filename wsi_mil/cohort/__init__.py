"""Who the slides are from, and what is known of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsi_mil.cohort.brought import files_of as files_of
    from wsi_mil.cohort.brought import folds_by_column as folds_by_column
    from wsi_mil.cohort.brought import read_brought as read_brought
    from wsi_mil.cohort.checked import ROLES as ROLES
    from wsi_mil.cohort.checked import check_folds as check_folds
    from wsi_mil.cohort.clinical import ClinicalEncoder as ClinicalEncoder
    from wsi_mil.cohort.clinical import Record as Record
    from wsi_mil.cohort.labels import class_faults as class_faults
    from wsi_mil.cohort.labels import count_faults as count_faults
    from wsi_mil.cohort.labels import flag_faults as flag_faults
    from wsi_mil.cohort.labels import flag_strata as flag_strata
    from wsi_mil.cohort.labels import grade_faults as grade_faults
    from wsi_mil.cohort.labels import joined_strata as joined_strata
    from wsi_mil.cohort.labels import number_faults as number_faults
    from wsi_mil.cohort.labels import number_strata as number_strata
    from wsi_mil.cohort.labels import survival_faults as survival_faults
    from wsi_mil.cohort.labels import survival_strata as survival_strata
    from wsi_mil.cohort.splits import make_folds as make_folds
    from wsi_mil.cohort.spreadsheet import read_table as read_table
    from wsi_mil.cohort.table import NO_SLIDES as NO_SLIDES
    from wsi_mil.cohort.table import SLIDE_SUFFIXES as SLIDE_SUFFIXES
    from wsi_mil.cohort.table import Cohort as Cohort
    from wsi_mil.cohort.table import find_slides as find_slides
    from wsi_mil.cohort.table import read_cohort as read_cohort

_PLACES = {
    "files_of": "brought",
    "folds_by_column": "brought",
    "read_brought": "brought",
    "ClinicalEncoder": "clinical",
    "Record": "clinical",
    "Cohort": "table",
    "SLIDE_SUFFIXES": "table",
    "NO_SLIDES": "table",
    "find_slides": "table",
    "read_cohort": "table",
    "read_table": "spreadsheet",
    "class_faults": "labels",
    "count_faults": "labels",
    "flag_faults": "labels",
    "flag_strata": "labels",
    "grade_faults": "labels",
    "joined_strata": "labels",
    "number_faults": "labels",
    "number_strata": "labels",
    "survival_faults": "labels",
    "survival_strata": "labels",
    "ROLES": "checked",
    "check_folds": "checked",
    "make_folds": "splits",
}

__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    # Loaded when first asked for: pandas takes half a second, which `wsi-mil --help` does not have.
    if name in _PLACES:
        from importlib import import_module

        return getattr(import_module(f"wsi_mil.cohort.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
