"""Exit codes and sentences of errors."""

from __future__ import annotations

import errno
import os
import socket
import sys

import pytest

from tests.cases import in_turn
from wireline import ClosedError, DialError, LineTooLongError, SocketTimeout, Target
from wireline.cli._outcome import (
    ExitCode,
    Failure,
    InputRefused,
    Stage,
    classify,
    during,
    print_stderr,
    report,
)


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def dial_error(*numbers: int) -> DialError:
    attempts = tuple(((f"192.0.2.{i}", 80), os_error(number), 0.1) for i, number in enumerate(numbers, 1))
    return DialError("'example' port 80", attempts)


@in_turn(
    "stage, error, code, words",
    [
        (
            Stage.CONNECT,
            dial_error(errno.ECONNREFUSED),
            ExitCode.UNREACHABLE,
            "server refused the connection",
        ),
        (Stage.CONNECT, dial_error(errno.ECONNREFUSED, errno.ECONNREFUSED), ExitCode.UNREACHABLE, "refused"),
        (Stage.CONNECT, dial_error(errno.EHOSTUNREACH), ExitCode.UNREACHABLE, "No route to host"),
        (
            Stage.CONNECT,
            dial_error(errno.ECONNREFUSED, errno.ENETUNREACH),
            ExitCode.UNREACHABLE,
            "192.0.2.1: Connection refused; 192.0.2.2: Network is unreachable",
        ),
        (Stage.CONNECT, dial_error(errno.ETIMEDOUT), ExitCode.TIMEOUT, "no answer from server"),
        (Stage.CONNECT, SocketTimeout("dial", 3), ExitCode.TIMEOUT, "from server: no connection within 3 s"),
        (
            Stage.CONNECT,
            socket.gaierror(-2, "not known"),
            ExitCode.UNREACHABLE,
            "cannot find server: not known",
        ),
        (Stage.CONNECT, os_error(errno.ENOENT), ExitCode.UNREACHABLE, "server does not exist"),
        (Stage.LISTEN, os_error(errno.EADDRINUSE), ExitCode.FAILED, "stop the program that uses it"),
        (Stage.LISTEN, os_error(errno.EACCES), ExitCode.FAILED, "ports below 1024 need privileges"),
        (
            Stage.CONNECT,
            os_error(errno.EACCES),
            ExitCode.UNREACHABLE,
            "cannot connect to server: Permission denied",
        ),
        (
            Stage.TALK,
            SocketTimeout("recv_some", 3),
            ExitCode.TIMEOUT,
            "timed out: no data received within 3 s",
        ),
        (Stage.LISTEN, os_error(errno.ENOENT), ExitCode.FAILED, "cannot listen on server: No such file"),
        (Stage.LISTEN, socket.gaierror(-2, "not known"), ExitCode.UNREACHABLE, "cannot find server"),
        (
            Stage.CONNECT,
            UnicodeError("no"),
            ExitCode.UNREACHABLE,
            "server: between two dots there is nothing",
        ),
        (Stage.CONNECT, os_error(errno.ENETUNREACH), ExitCode.UNREACHABLE, "and the network of this machine"),
        (Stage.ACCEPT, SocketTimeout("accept", 3), ExitCode.TIMEOUT, "no client on server"),
        (Stage.ACCEPT, os_error(errno.EMFILE), ExitCode.FAILED, "Too many open files"),
        (Stage.TALK, os_error(errno.ECONNRESET), ExitCode.TRUNCATED, "the data is incomplete"),
        (
            Stage.TALK,
            os_error(errno.EPIPE),
            ExitCode.TRUNCATED,
            "the connection with server broke: Broken pipe",
        ),
        (Stage.TALK, InputRefused(), ExitCode.TRUNCATED, "before it received all of the input"),
        (Stage.TALK, os_error(errno.ECONNREFUSED), ExitCode.UNREACHABLE, "server refused"),
        (Stage.TALK, TimeoutError("no data received for 2 s"), ExitCode.TIMEOUT, "no data received for 2 s"),
        (Stage.TALK, os_error(errno.EMSGSIZE), ExitCode.FAILED, "send less at a time"),
        (Stage.TALK, LineTooLongError("recv_until", 7), ExitCode.FAILED, "limit of 7 bytes"),
        (Stage.INPUT, os_error(errno.EISDIR), ExitCode.FAILED, "cannot read standard input: Is a directory"),
        (Stage.OUTPUT, os_error(errno.ENOSPC), ExitCode.FAILED, "cannot write to standard output: No space"),
    ],
)
def test_a_failure_has_a_code_and_a_sentence(stage: Stage, error: Exception, code: int, words: str) -> None:
    outcome = classify(Failure(stage, error, "server"))
    assert outcome.code is code
    assert words in outcome.sentence
    assert "Errno" not in outcome.sentence
    assert "\n" not in outcome.sentence


@in_turn(
    "number, words",
    [(errno.EADDRINUSE, "or remove its socket if there is none"), (errno.ENOENT, "make the directory first")],
)
def test_the_advice_about_a_unix_socket_is_about_a_file(number: int, words: str) -> None:
    outcome = classify(Failure(Stage.LISTEN, os_error(number), "unix:/run/x"))
    assert outcome.code is ExitCode.FAILED
    assert words in outcome.sentence
    assert words not in classify(Failure(Stage.LISTEN, os_error(number), "host:80")).sentence


def test_a_closed_output_pipe_has_no_sentence() -> None:
    assert classify(Failure(Stage.OUTPUT, os_error(errno.EPIPE))) == (ExitCode.FAILED, "")


def test_every_stage_has_a_row_for_every_error() -> None:
    for stage in Stage:
        assert classify(Failure(stage, RuntimeError("odd"), "server")).code in ExitCode


def test_an_unexpected_error_is_called_a_bug() -> None:
    code, sentence = classify(ZeroDivisionError("division by zero"))
    assert code is ExitCode.FAILED
    assert "bug in wireline" in sentence
    assert "ZeroDivisionError: division by zero" in sentence


def test_during_raises_an_error_of_the_system_as_a_failure() -> None:
    with pytest.raises(Failure) as caught, during(Stage.LISTEN, Target("tcp", "::1", 80)):
        raise os_error(errno.EADDRINUSE)
    assert caught.value.subject == "[::1]:80"
    assert isinstance(caught.value.__cause__, OSError)


def test_during_passes_on_a_socket_that_this_side_closed() -> None:
    with pytest.raises(ClosedError), during(Stage.TALK, "peer"):
        raise ClosedError


def test_the_sentence_goes_to_standard_error_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(Failure(Stage.INPUT, os_error(errno.EIO))) == 1
    assert capsys.readouterr() == ("", "wireline: cannot read standard input: Input/output error\n")


def test_debug_adds_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise Failure(Stage.INPUT, os_error(errno.EIO))
    except Failure as failure:
        report(failure, debug=True)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1].startswith("wireline: ")


def test_a_closed_standard_error_is_survived(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    print_stderr("dropped")
    assert capsys.readouterr().out == ""
