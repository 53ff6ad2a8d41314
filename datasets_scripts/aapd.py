"""AAPD: abstracts of computer-science papers on arXiv with their 54 subject categories (Yang et al. 2018)."""

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from sgm_hf.data.lines import read_lines

from ._corpus import CorpusBuilder, CorpusConfig, RepeatedLabels, check_labels, check_text

# The corpus comes without a label list. This order is ours: descending number of documents in the official training
# labels (53,840 documents), ties by name.
LABEL_NAMES = tuple(
    """
    cs.IT math.IT cs.LG cs.AI stat.ML cs.DS cs.DM cs.SI cs.LO math.CO physics.soc-ph cs.NI cs.CC math.OC cs.CL cs.CV
    cs.CR cs.DC cs.SY cs.NE cs.IR cs.GT quant-ph cs.CY cs.PL cs.DB cs.SE math.PR cs.CG cs.NA cs.HC cs.MA math.NA
    cs.CE cs.RO cs.FL math.ST stat.TH cs.DL cmp-lg cs.MM cs.PF math.LO cond-mat.stat-mech stat.AP stat.ME cs.MS
    cond-mat.dis-nn q-bio.NC cs.SC math.NT physics.data-an q-bio.QM nlin.AO
    """.split()
)


class AAPD(CorpusBuilder):
    """Builder of AAPD.

    Text and labels are in parallel files, one document per line. A document's id is the split and the line number.
    Fifteen lines of the official training labels name a label twice: the repetition is dropped, with a warning.
    """

    BUILDER_CONFIGS = [
        CorpusConfig(
            name="default",
            version="1.0.0",
            description="The official split",
            split_files={
                "train": ("text_train", "label_train"),
                "validation": ("text_val", "label_val"),
                "test": ("text_test", "label_test"),
            },
            expected_documents={"train": 53_840, "validation": 1_000, "test": 1_000},
            how_to_obtain=(
                "AAPD: follow the download link at https://github.com/lancopku/SGM (no licence is stated for the "
                "corpus; the abstracts are arXiv metadata); put text_train and label_train, text_val and label_val, "
                "text_test and label_test (any of the three pairs, plain or .gz) into one folder and pass it as "
                "data_dir"
            ),
        )
    ]
    LABEL_NAMES = LABEL_NAMES
    DESCRIPTION = "Abstracts of 55,840 computer-science papers on arXiv with their 54 subject categories."
    HOMEPAGE = "https://github.com/lancopku/SGM"
    LICENSE = "No licence is stated; the abstracts are arXiv metadata."
    CITATION = (
        "Pengcheng Yang, Xu Sun, Wei Li, Shuming Ma, Wei Wu, Houfeng Wang. SGM: Sequence Generation Model for "
        "Multi-Label Classification. COLING 2018, pages 3915-3926."
    )

    def _generate_examples(self, split: str, files: tuple[Path, ...]) -> Iterator[tuple[int, dict[str, Any]]]:
        text_path, label_path = files
        repeats = RepeatedLabels()
        end = (0, None)
        text_number = 0
        for (text_number, text), (label_number, line) in zip_longest(
            read_lines(text_path), read_lines(label_path), fillvalue=end
        ):
            if text is None or line is None:
                longer, shorter = (label_path, text_path) if text is None else (text_path, label_path)
                number = max(text_number, label_number)
                raise ValueError(
                    f"{longer}, line {number}: {shorter} ends at line {number - 1}, but both files must have the same "
                    "number of lines, one per document; fetch the shorter file again or remove the surplus"
                )
            place = f"{label_path}, line {label_number}"
            labels = repeats.merge(line.split(), place)
            check_labels(labels, LABEL_NAMES, place)
            check_text(text, f"{text_path}, line {text_number}")
            yield text_number, {"id": f"{split}-{text_number}", "text": text, "labels": labels}
        if text_number == 0:
            raise ValueError(f"{text_path} and {label_path} have no document; fetch them again")
        repeats.report()
