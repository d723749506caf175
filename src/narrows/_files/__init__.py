"""Tensors from files that nobody vouches for, and files that are whole or not there."""

from narrows._files._atomic import check_target as check_target
from narrows._files._atomic import write_bytes_atomic as write_bytes_atomic
from narrows._files._atomic import write_tensors_atomic as write_tensors_atomic
from narrows._files._atomic import write_text_atomic as write_text_atomic
from narrows._files._digest import sha256_tensor as sha256_tensor
from narrows._files._read import Layout as Layout
from narrows._files._read import missing_name as missing_name
from narrows._files._read import read_tensor as read_tensor
from narrows._files._read import tensor_names as tensor_names
from narrows._files._read import tensor_shapes as tensor_shapes
