"""Which SQL may be asked: one statement, made only of parts that are known to be harmless.

Everything here is a list of what is allowed.  What is on no list is refused, so that a function
or a construct that somebody invents later does not slip through.
"""

from __future__ import annotations

import logging

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, SqlglotError

from toolkit.errors import CallDenied, UsageError

__all__ = ["CHANGES", "check_parts", "parse_statement", "refused"]

MAX_CHARS = 50_000
_MAX_NODES = 5_000
_MAX_DEPTH = 100

CHANGES = (exp.Insert, exp.Update, exp.Delete)
"""Statements that a writable source takes."""

_KNOWN_PARTS = (
    # the skeleton of a query
    "Select From Join Where Group Having Order Ordered Limit Offset Fetch Distinct With CTE "
    "Subquery Union Except Intersect Table TableAlias Alias Identifier Column Star Lateral "
    "Values Tuple Paren Window WindowSpec Filter WithinGroup Grouping GroupingSets Cube Rollup "
    "Rows Var AggOrder OnConflict "
    # values
    "Literal Boolean Null Placeholder Cast TryCast DataType DataTypeParam Interval IntervalSpan "
    "National HexString ByteString RawString Array Bracket Slice "
    # operators
    "And Or Not Xor EQ NEQ GT GTE LT LTE Is NullSafeEQ NullSafeNEQ Between In Like ILike "
    "SimilarTo Glob RegexpLike RegexpILike Escape Exists Any All Add Sub Mul Div Mod IntDiv "
    "Neg DPipe SafeDPipe BitwiseAnd BitwiseOr BitwiseXor BitwiseNot BitwiseLeftShift "
    "BitwiseRightShift Distance Overlaps AtTimeZone Collate Case If Concat "
    # JSON
    "JSONPath JSONPathRoot JSONPathKey JSONPathSubscript JSONExtract JSONExtractScalar "
    "JSONBExtract JSONBExtractScalar JSONBContains ArrayContainsAll ArrayContainedBy "
    "JSONArrayContains ArrayOverlaps "
    # functions that sqlglot knows
    "Abs Acos Asin Atan Atan2 Avg Cbrt Ceil Coalesce ConcatWs Corr Cos Cot Count CountIf "
    "CovarPop CovarSamp CumeDist CurrentDate CurrentTime CurrentTimestamp Date DateAdd DateBin "
    "DateDiff DateFromParts DateSub DateTrunc Datetime Day DayOfMonth DayOfWeek DayOfYear "
    "Degrees DenseRank Exp Extract FirstValue Floor Greatest GroupConcat Hex Hour Initcap Lag "
    "LastValue Lead Least Left Length Levenshtein Ln Localtime Localtimestamp Log LogicalAnd "
    "LogicalOr Lower MD5 Max Median Min Minute Mode Month NthValue Ntile Nullif NumberToStr Nvl2 "
    "Overlay PercentRank PercentileCont PercentileDisc Pi Pow Quarter Radians Rank RegexpExtract "
    "RegexpReplace RegexpInstr RegexpCount RegexpSubstr Replace Reverse Right Round RowNumber "
    "Second Sign Sin SplitPart Sqrt StartsWith Stddev StddevPop StddevSamp StrPosition StrToDate "
    "StrToTime StrToUnix Substring Sum Tan Time TimeAdd TimeDiff TimeSub TimeToStr TimeToUnix "
    "Timestamp TimestampDiff TimestampTrunc TimestampFromParts ToChar ToNumber Translate Trim "
    "Trunc TsOrDsAdd TsOrDsDiff TsOrDsToDate TsOrDsToDateStr TsOrDsToDatetime TsOrDsToTime "
    "TsOrDsToTimestamp Typeof Unicode UnixToTime Upper Variance VariancePop Week WeekOfYear "
    "WidthBucket Year ArrayAgg ArraySize ArrayToString ArrayContains StringToArray JSONObject "
    "JSONArray JSONObjectAgg JSONArrayAgg JSONBObjectAgg JSONType JSONKeys JSONStripNulls "
    "MakeInterval JustifyDays JustifyHours JustifyInterval Chr Ascii RegexpSplit AnyValue Pad "
    "BitLength"
)
_PARTS = frozenset(_KNOWN_PARTS.lower().split())
_KNOWN_FUNCTIONS = (
    # SQLite and PostgreSQL, as far as sqlglot has no class of its own for them
    "abs age array_length array_position btrim cardinality char char_length character_length "
    "date_part date_trunc div format_date geomean glob iif instr isfinite json_array "
    "json_array_length json_each_text json_extract_path json_extract_path_text json_group_array "
    "json_group_object json_object json_quote json_type json_typeof json_valid jsonb_agg "
    "jsonb_array_length jsonb_build_array jsonb_build_object jsonb_extract_path "
    "jsonb_extract_path_text jsonb_object_agg jsonb_typeof json_agg json_build_array "
    "json_build_object json_object_agg julianday length like likely lower ltrim make_date "
    "make_time make_timestamp make_timestamptz mod nullif num_nonnulls num_nulls octet_length "
    "position power printf quote quote_literal regexp_count regexp_like regexp_match "
    "regexp_replace regexp_substr round rtrim scale sha256 sqrt strpos substr substring total "
    "to_char to_date to_number to_timestamp trunc unicode unixepoch unlikely upper bool_and "
    "bool_or every string_agg array_agg percent_rank width_bucket log10 log2 ceiling timediff "
    "bit_and bit_or regr_slope regr_intercept regr_r2 regr_count var_pop var_samp min_scale "
    "encode md5 sign format starts_with concat concat_ws left right lpad rpad split_part"
)
_FUNCTIONS = frozenset(_KNOWN_FUNCTIONS.split())
_FORBIDDEN_ARGS = ("into", "locks", "sample", "pivots", "hint", "match", "laterals", "connect")
_ARG_NAMES = {
    "into": "SELECT … INTO",
    "locks": "FOR UPDATE",
    "sample": "TABLESAMPLE",
    "pivots": "PIVOT",
    "hint": "hints",
}


def refused(what: str, *, source: str, next_step: str | None = None) -> CallDenied:
    """Return the error of a query that the gateway will not put to a database."""
    return CallDenied(
        f"the query was refused: {what}",
        next_step=next_step or "see docs/data.md for what a query may hold",
        details={"policies": ["data.sql"], "source": source},
    )


class _Quiet(logging.Filter):
    """Keeps the parser from printing queries when it meets syntax that it does not know."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.ERROR


logging.getLogger("sqlglot").addFilter(_Quiet())


def parse_statement(sql: str, dialect: str, *, source: str) -> exp.Expr:
    """Return the only statement of ``sql``.

    Raises:
        UsageError: It does not parse.
        CallDenied: It holds more than one statement, or is of a kind that is never taken.
    """
    if len(sql) > MAX_CHARS:
        raise UsageError(f"the query has {len(sql):,} characters; at most {MAX_CHARS:,} are taken")
    if "\0" in sql:
        raise UsageError("the query holds a null character")
    try:
        found = [tree for tree in sqlglot.parse(sql, read=dialect) if tree is not None]
    except ParseError as error:
        raise UsageError(
            f"the query does not parse as {dialect}: {_problem(error)}",
            next_step="mend the query; it is read in the dialect of its source",
        ) from error
    except (SqlglotError, RecursionError, ValueError) as error:
        raise UsageError(
            f"the query does not parse as {dialect}: {type(error).__name__}"
        ) from error
    if not found:
        raise UsageError("the query is empty")
    if len(found) > 1:
        raise refused(f"it holds {len(found)} statements; one is taken at a time", source=source)
    tree = found[0]
    if not isinstance(tree, exp.Query | exp.Insert | exp.Update | exp.Delete):
        kind = "this kind of statement" if isinstance(tree, exp.Command) else tree.key.upper()
        raise refused(f"{kind} is never taken, only SELECT and its like", source=source)
    return tree


def _problem(error: ParseError) -> str:
    first = error.errors[0] if error.errors else {}
    place = f" (line {first['line']}, column {first['col']})" if first.get("line") else ""
    return f"{str(first.get('description') or 'malformed').rstrip('.')}{place}"


def check_parts(tree: exp.Expr, *, source: str, changing: bool = False) -> None:
    """Refuse a statement that holds anything but known, harmless parts.

    Args:
        tree: The statement.
        source: Its source's name.
        changing: The root may be INSERT, UPDATE or DELETE.

    Raises:
        CallDenied: It holds something else.
    """
    count = 0
    for node in tree.walk():
        count += 1
        if count > _MAX_NODES or node.depth > _MAX_DEPTH:
            raise refused("it is too large or nested too deeply", source=source)
        # INSERT INTO t (a, b): the table with its columns.
        if changing and (node is tree or (isinstance(node, exp.Schema) and node.parent is tree)):
            continue
        _check_node(node, source)


def _check_node(node: exp.Expr, source: str) -> None:
    if isinstance(node, exp.DML | exp.DDL) and not isinstance(node, exp.Query | exp.Values):
        raise refused(f"{node.key.upper()} is not taken inside of a query", source=source)
    for name in _FORBIDDEN_ARGS:
        if node.args.get(name):
            raise refused(f"{_ARG_NAMES.get(name, name.upper())} is not taken", source=source)
    if isinstance(node, exp.Anonymous):
        if node.name.lower() not in _FUNCTIONS:
            raise _unknown_function(node.name, source)
    elif node.key not in _PARTS and type(node).__name__.lower() not in _PARTS:
        if isinstance(node, exp.Func):
            raise _unknown_function(node.sql_name(), source)
        raise refused(f"{_readable(node)} cannot be analysed", source=source)
    if isinstance(node, exp.Placeholder) and not _is_named(node):
        raise refused(
            "it has a parameter without a name",
            source=source,
            next_step="write parameters as :name and give their values by name",
        )
    if isinstance(node, exp.DataType) and not _is_plain_type(node):
        raise refused(f"the type {node.sql()} is not taken", source=source)
    if isinstance(node, exp.Table) and not isinstance(node.this, exp.Identifier):
        raise refused("a function cannot be read as a table", source=source)


def _unknown_function(name: str, source: str) -> CallDenied:
    return refused(
        f"the function {name.lower()} is not on the list of harmless ones", source=source
    )


def _is_named(node: exp.Placeholder) -> bool:
    return isinstance(node.this, str) and node.this.isidentifier() and node.this.isascii()


def _is_plain_type(node: exp.DataType) -> bool:
    kind = node.this
    return isinstance(kind, exp.DType) and kind not in (exp.DType.USERDEFINED, exp.DType.XML)


def _readable(node: exp.Expr) -> str:
    names = {
        "tablecolumn": "a whole row as a value",
        "dot": "a field of a composite value, or a name with a schema,",
        "operator": "OPERATOR(…)",
        "parameter": "a parameter that is not written as :name",
        "sessionparameter": "a session variable",
        "command": "this statement",
    }
    return names.get(node.key, node.key.upper())
