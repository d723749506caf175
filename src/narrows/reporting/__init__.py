"""Tables, statements, the document and its page: what is read off a report. Never touches a device."""

from narrows.reporting._records import Document as Document
from narrows.reporting._records import Section as Section
from narrows.reporting._table import Cell as Cell
from narrows.reporting._table import Column as Column
from narrows.reporting._table import Table as Table
from narrows.reporting._text import clean as clean
from narrows.reporting._text import table_markdown as table_markdown
from narrows.reporting._text import table_text as table_text
from narrows.reporting._text import to_markdown as to_markdown
from narrows.reporting._text import to_text as to_text
