"""Search over models and versions: MLflow's filter grammar, extended, compiled to bound SQL.

    filter      := comparison, NOT filter, filter AND filter, filter OR filter, ( filter )     NOT binds first, OR last
    comparison  := field = != < <= > >= value | field [NOT] LIKE text | field [NOT] ILIKE text
                 | field [NOT] IN (value, ...) | field IS [NOT] NULL
    field       := an attribute (bare, or after "attribute." / "attributes."), tags.KEY, metrics.KEY, params.KEY
                   (also tag. metric. param. parameter. parameters.); in backticks or double quotes a KEY may be any
                   text
    value       := a number, or a text in single or double quotes; a quote inside is written twice

What a comparison means:
- Every comparison is true or false, never unknown; NOT turns it around.
- A comparison about a tag, metric, parameter or attribute that is missing is false. So `tags.x != 'v'` does not find
  what lacks the tag x (as in MLflow), and `NOT tags.x = 'v'` does.
- `alias`, and `stage` of a model, hold several values. `=`, `IN` and `LIKE` are true when one of them fits; `!=`,
  `NOT IN` and `NOT LIKE` when none does. `name` fits by the present name and by the one of registration.
- `stage` and `status` do not care about capitals. In LIKE, % is any text, _ one character, and a backslash before
  either takes it literally.
- Times are milliseconds since 1970, as in MLflow, or ISO texts; a text without an offset is UTC.

Orders: a missing value comes last in both directions. Tags and parameters are ordered by their first
`INDEXED_CHARACTERS` characters. Ties are ordered by model and version, in the direction of the last key.
"""
