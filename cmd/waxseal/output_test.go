package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"waxseal/fleet/appraise"
	"waxseal/fleet/challenge"
)

func TestColourOnlyOnTerminals(t *testing.T) {
	terminal, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0) // a character device, as a terminal is
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")
	if got := paintFor(terminal)(red, "FAILED"); got != "\x1b[31mFAILED\x1b[0m" {
		t.Errorf("on a terminal: %q", got)
	}
	if got := paintFor(&bytes.Buffer{})(red, "FAILED"); got != "FAILED" {
		t.Errorf("into a pipe: %q", got)
	}
	t.Setenv("NO_COLOR", "1")
	if got := paintFor(terminal)(red, "FAILED"); got != "FAILED" {
		t.Errorf("with NO_COLOR: %q", got)
	}
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "dumb")
	if got := paintFor(terminal)(red, "FAILED"); got != "FAILED" {
		t.Errorf("on a dumb terminal: %q", got)
	}
}

func TestCleanLeavesNothingThatSteers(t *testing.T) {
	for in, want := range map[string]string{
		"plain":             "plain",
		"größe…":            "größe…",
		"a\x1b[31mb":        `a\x1b[31mb`,
		"a\nb\r":            `a\nb\r`,
		"evil\u202egnp.exe": `evil\u202egnp.exe`,
		"bad\xffutf8":       "bad�utf8",
		"back\\slash":       `back\slash`,
		"zero\u200bwidth":   `zero\u200bwidth`,
		"c1\u009bcontrol":   `c1\u009bcontrol`,
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
}

// Whatever stands in a verdict, the table has no control character but newline.
func TestTableEscapesEveryText(t *testing.T) {
	const evil = "x\x1b[2J\r\u202e"
	r := challenge.Result{Outcome: challenge.Judged, Notes: []string{evil}, Verdict: appraise.Verdict{
		Result: appraise.Contraindicated, Assurance: appraise.AssuranceSelf, Serial: evil, Product: evil, Version: evil, Bank: evil,
		Reasons: []string{evil},
		Components: []appraise.Component{
			{Name: evil, Result: appraise.Contraindicated, State: appraise.Changed, Note: evil, Diff: []appraise.Line{{Number: 1, Op: "+", Text: evil}}},
			{Name: "f" + evil, Result: appraise.Contraindicated, State: appraise.Follows, Follows: evil},
		},
	}}
	table := table{paint: paintFor(&bytes.Buffer{})}
	table.result(r)
	if text := table.String(); strings.ContainsAny(text, "\x1b\r\u202e") || strings.Count(text, `\x1b[2J`) < 8 {
		t.Errorf("table is %q", text)
	}
}

func TestExitCodeFollowsTheOutcome(t *testing.T) {
	for _, c := range []struct {
		outcome challenge.Outcome
		result  appraise.Result
		want    error
	}{
		{challenge.Judged, appraise.Affirming, nil},
		{challenge.Judged, appraise.Contraindicated, exitCode(exitFailed)},
		{challenge.Judged, appraise.Warning, exitCode(exitFailed)},
		{challenge.Judged, appraise.None, exitCode(exitFailed)},
		{challenge.Genuine, appraise.None, exitCode(exitError)},
		{challenge.Refused, appraise.Contraindicated, exitCode(exitFailed)},
		{challenge.Refused, appraise.Affirming, exitCode(exitFailed)},
		{challenge.Unattested, appraise.None, exitCode(exitFailed)},
		{challenge.Unauthenticated, appraise.None, exitCode(exitFailed)},
		{challenge.Unreachable, appraise.None, exitCode(exitUnreachable)},
		{"", appraise.Affirming, exitCode(exitFailed)},
	} {
		r := challenge.Result{Outcome: c.outcome, Verdict: appraise.Verdict{Result: c.result}}
		if got := verdictCode(r); got != c.want {
			t.Errorf("%s %s: %v, want %v", c.outcome, c.result, got, c.want)
		}
	}
}
