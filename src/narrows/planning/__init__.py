"""Decisions: which rank for which length, which form for which layer of a model, whether two runs differ. Pure."""

from narrows.planning._allocate import allocate as allocate
from narrows.planning._allocate_menu import menu as menu
from narrows.planning._choose import choose as choose
from narrows.planning._choose import plan_from as plan_from
from narrows.planning._compare import Difference as Difference
from narrows.planning._compare import Differences as Differences
from narrows.planning._compare import compare as compare
from narrows.planning._frontier import Candidate as Candidate
from narrows.planning._frontier import Point as Point
from narrows.planning._frontier import Scope as Scope
from narrows.planning._frontier import pick as pick
from narrows.planning._frontier import points as points
from narrows.planning._frontier import scope as scope
from narrows.planning._model_frontier import CostName as CostName
from narrows.planning._model_frontier import ModelFrontierPoint as ModelFrontierPoint
from narrows.planning._model_frontier import model_frontier as model_frontier
