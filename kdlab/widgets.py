"""Explorers by name, for lessons and demos; each opens with one line and keeps its picture where nothing runs."""

from .explorers import peaks_explorer as peaks_explorer
from .explorers import temperature_explorer as temperature_explorer
from .panel import Explorer as Explorer
from .panel import choice as choice
from .panel import entry as entry
from .panel import slider as slider
from .races import distillation_race as distillation_race
from .races import hidden_layers_explorer as hidden_layers_explorer
from .tradeoff import choose_student_explorer as choose_student_explorer
