"""What this machine is and what it can do at best: read from the system, or measured now."""

from narrows._machine._ceilings import ceilings as ceilings
from narrows._machine._conditions import conditions as conditions
from narrows._machine._describe import machine as machine
from narrows._machine._memory import available_bytes as available_bytes
from narrows._machine._memory import check_fits as check_fits
from narrows._machine._memory import first_line as first_line
from narrows._machine._memory import fitting as fitting
from narrows._machine._memory import is_shortage as is_shortage
from narrows._machine._probe import DtypeProbe as DtypeProbe
from narrows._machine._probe import probe_dtypes as probe_dtypes
