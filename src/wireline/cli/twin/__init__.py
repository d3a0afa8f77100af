"""``wireline twin``: makes the blocking twin of a program or package that is written on ``wireline.asyncnet``.

How a file becomes its twin, in this order:

* `_source`: bytes to text, and back.
* `_python`: the text as tokens and as a tree, with offsets into the file for both. Strings with replacement fields are
  divided here and not by ``tokenize``, which does it from Python 3.12 on only.
* `_markers`: the comments ``# async:`` and ``# blocking:``, which leave lines out or replace them.
* `_names`: what each name is in the twin, and which have no twin.
* `_rewrite`, `_import_statements`, `_docstrings`: the edits. An edit never adds or removes a line, so that a line keeps
  its number.
* `_imports`: names that only the async lines needed leave the imports; `time` and `threading` come in.
* `_header`: the comment at the top, and which lines make place for it.

`_convert` calls them, `_files` decides which file becomes which and writes them, `_twin` is the command.
"""
