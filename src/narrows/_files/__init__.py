"""Tensors from files that nobody vouches for, and files that are whole or not there."""

from narrows._files._atomic import check_target as check_target
from narrows._files._atomic import make_folder as make_folder
from narrows._files._atomic import write_bytes_atomic as write_bytes_atomic
from narrows._files._atomic import write_tensors_atomic as write_tensors_atomic
from narrows._files._atomic import write_text_atomic as write_text_atomic
from narrows._files._database import decoded as decoded
from narrows._files._database import not_a_database as not_a_database
from narrows._files._database import structural_damage as structural_damage
from narrows._files._database import table_names as table_names
from narrows._files._digest import sha256_tensor as sha256_tensor
from narrows._files._plain import read_file as read_file
from narrows._files._plain import read_text as read_text
from narrows._files._read import Layout as Layout
from narrows._files._read import missing_name as missing_name
from narrows._files._read import read_tensor as read_tensor
from narrows._files._read import tensor_names as tensor_names
from narrows._files._read import tensor_shapes as tensor_shapes
from narrows._files._turn import take_turn as take_turn
from narrows._files._turn import turn as turn
