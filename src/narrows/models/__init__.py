"""Real transformer models: match, calibrate, compress, save, load, check.

Importing this package registers compressed models with transformers, so that `from_pretrained`
reads them.
"""

from importlib.util import find_spec as _find_spec

if _find_spec("transformers") is None:
    from narrows.errors import ResourceError as _ResourceError

    raise _ResourceError("models need transformers >= 5.17 and scipy: pip install 'narrows[models]'.")

from narrows.models._apply import apply_ as apply_
from narrows.models._attention import AttentionWidths as AttentionWidths
from narrows.models._attention_narrow import narrow_attention_ as narrow_attention_
from narrows.models._attention_summary import AttentionChange as AttentionChange
from narrows.models._attention_summary import AttentionSummary as AttentionSummary
from narrows.models._check import check as check
from narrows.models._compress import Compression as Compression
from narrows.models._compress import compress_ as compress_
from narrows.models._compress_folder import compress as compress
from narrows.models._compress_search import Nearest as Nearest
from narrows.models._densify import densify as densify
from narrows.models._foresee import foreseen as foreseen
from narrows.models._load import load as load
from narrows.models._manifest import Manifest as Manifest
from narrows.models._manifest import verified as verified
from narrows.models._recipe import Recipe as Recipe
from narrows.models._save import check_output as check_output
from narrows.models._save import save as save
from narrows.models._summary import LayerSummary as LayerSummary
from narrows.models._summary import Summary as Summary
