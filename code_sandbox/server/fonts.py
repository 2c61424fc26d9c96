"""Chinese, Japanese and Korean text in figures: Matplotlib's own font has none of their characters, and draws boxes."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

_FOUND_BELOW = "/usr/"
"""Where sessions can read."""
FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN",
    "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "AR PL UMing CN", "AR PL UKai CN", "Unifont",
)  # fmt: skip
"""That hold them all, the best first."""
_FILES = re.compile(r"wqy|cjk|notosanssc|sourcehansans|droidsansfallback|uming|ukai|unifont", re.IGNORECASE)
_WEIGHTS = (400, 700)
_ASKED_FOR = (
    *FONTS, "SimHei", "SimSun", "NSimSun", "KaiTi", "FangSong", "Microsoft YaHei", "Microsoft JhengHei", "STHeiti", "STSong",
    "STKaiti", "STXihei", "Heiti SC", "Heiti TC", "Songti SC", "PingFang SC", "PingFang HK", "Hiragino Sans GB", "LiHei Pro",
    "Arial Unicode MS", "MS Gothic", "Yu Gothic", "Meiryo", "IPAexGothic", "TakaoGothic", "Malgun Gothic", "NanumGothic",
    "AppleGothic",
)  # fmt: skip
"""By programs that were written on other machines."""
ADVICE = "none: Chinese, Japanese and Korean text in figures is boxes; install fonts-wqy-microhei or fonts-noto-cjk"


def found() -> Any | None:
    """The entry of the font that is used, in Matplotlib's list; None if this machine has none."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    def known() -> Any | None:
        there = {entry.name: entry for entry in reversed(fontManager.ttflist) if entry.fname.startswith(_FOUND_BELOW)}
        return next((there[name] for name in FONTS if name in there), None)

    if known() is None:
        # Matplotlib keeps its list from when it was first used; a font may have come since.
        for path in findSystemFonts():
            if _FILES.search(path):
                fontManager.addfont(path)
    return known()


def use() -> None:
    """Draw with it what Matplotlib's own font lacks, and let it stand for those that programs ask for by name."""
    import matplotlib
    from matplotlib.font_manager import fontManager

    entry = found()
    if entry is None:
        return
    known = {each.name for each in fontManager.ttflist} - {entry.name}
    names = [name for name in _ASKED_FOR if name not in known]
    # A weight that it does not have would be a warning on the stderr of every figure.
    fontManager.ttflist += [dataclasses.replace(entry, name=name, weight=weight) for name in names for weight in _WEIGHTS]
    # In both, so that `plt.rcdefaults()` and styles keep it.
    for settings in (matplotlib.rcParams, matplotlib.rcParamsDefault):
        settings["font.family"] = ["sans-serif", entry.name]
