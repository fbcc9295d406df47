package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"waxseal/fleet/appraise"
	"waxseal/fleet/challenge"
)

// table writes a result for people. Each state has a word; a colour only
// repeats it.
type table struct {
	strings.Builder
	paint func(colour int, s string) string
}

// ANSI colours (ECMA-48, SGR).
const (
	red    = 31
	green  = 32
	yellow = 33
	dim    = 2
)

// paintFor returns a painter for w: colours on a terminal, unless NO_COLOR is
// set (no-color.org), and plain text elsewhere.
func paintFor(w io.Writer) func(int, string) string {
	if !isTerminal(w) || os.Getenv("NO_COLOR") != "" {
		return func(_ int, s string) string { return s }
	}
	return func(colour int, s string) string { return "\x1b[" + strconv.Itoa(colour) + "m" + s + "\x1b[0m" }
}

func (t *table) line(format string, args ...any) { fmt.Fprintf(t, format+"\n", args...) }

func (t *table) result(r challenge.Result) {
	v := r.Verdict
	t.line("%s", t.sentence(r))
	t.line("")
	t.line("result      %s", t.paint(colourOf(v.Result), string(v.Result)))
	if r.Outcome != challenge.Unreachable && r.Outcome != challenge.Unauthenticated && r.Outcome != challenge.Unattested {
		t.line("assurance   %s: %s", v.Assurance, assuranceText[v.Assurance])
	}
	if v.Serial != "" {
		t.line("router      %s", clean(v.Serial))
	}
	if v.Product != "" || v.Version != "" {
		t.line("reference   %s", clean(strings.TrimSpace(v.Product+" "+v.Version)))
	}
	if !v.Received.IsZero() {
		t.line("received    %s, PCR bank %s", v.Received.Format(time.RFC3339), clean(v.Bank))
	}
	for _, reason := range v.Reasons {
		t.line("reason      %s", clean(reason))
	}
	for _, note := range r.Notes {
		t.line("note        %s", clean(note))
	}
	t.components(v.Components)
}

var assuranceText = map[appraise.Assurance]string{
	appraise.AssuranceNone:     "nothing is proven",
	appraise.AssuranceSelf:     "the agent measured the boot that loaded it; a changed bootloader could have lied to it",
	appraise.AssuranceFirmware: "the firmware measured what holds the agent, and it is as predicted",
	appraise.AssuranceHardware: "the firmware measured what holds the agent, and hardware verified the firmware",
}

// sentence says the whole in one line.
func (t *table) sentence(r challenge.Result) string {
	v := r.Verdict
	who := "The router"
	if v.Serial != "" {
		who = clean(v.Serial)
	}
	release := clean(strings.TrimSpace(v.Product + " " + v.Version))
	switch r.Outcome {
	case challenge.Unreachable:
		return t.paint(yellow, "UNREACHABLE") + ": the router gave no answer; nothing is known of its boot."
	case challenge.Unauthenticated:
		return t.paint(red, "NOT AUTHENTICATED") + ": who answered is not proven to be the router."
	case challenge.Unattested:
		return t.paint(red, "UNATTESTED") + ": the router gave no evidence."
	case challenge.Refused:
		return t.paint(red, "REFUSED") + ": what was sent as evidence is not genuine."
	case challenge.Genuine:
		return t.paint(green, "GENUINE") + ": " + who + " answered with its own TPM; its boot was not judged."
	}
	switch v.Result {
	case appraise.Affirming:
		return t.paint(green, "TRUSTED") + ": " + who + " has booted what " + release + " should be."
	case appraise.Warning:
		return t.paint(yellow, "WARNING") + ": " + who + " has booted " + release + ", but see the reasons."
	}
	return t.paint(red, "FAILED") + ": " + who + " has not booted what " + release + " should be" + t.culprits(v) + "."
}

// culprits names up to three components that differ by themselves.
func (t *table) culprits(v appraise.Verdict) string {
	var names []string
	for _, c := range v.Culprits() {
		names = append(names, clean(c.Name)+" is "+string(c.State))
	}
	switch {
	case len(names) == 0:
		return ""
	case len(names) > 3:
		names = append(names[:3], fmt.Sprintf("and %d more", len(names)-3))
	}
	return ": " + strings.Join(names, ", ")
}

func colourOf(r appraise.Result) int {
	switch r {
	case appraise.Affirming:
		return green
	case appraise.Contraindicated:
		return red
	}
	return yellow
}

// components writes the table: what differs by itself first, each with what
// follows from it, then the rest.
func (t *table) components(all []appraise.Component) {
	if len(all) == 0 {
		return
	}
	t.line("")
	width := len("COMPONENT")
	for _, c := range all {
		width = max(width, utf8.RuneCountInString(clean(c.Name)))
	}
	t.line("%s", t.paint(dim, fmt.Sprintf("  %s  %-13s  PCR  %-12s  ACTUAL", pad("COMPONENT", width), "STATE", "EXPECTED")))
	shown := map[string]bool{}
	for _, c := range ordered(all) {
		if shown[c.Name] {
			continue
		}
		shown[c.Name] = true
		t.component(c, width)
		for _, f := range all {
			if f.Follows == c.Name && !shown[f.Name] {
				shown[f.Name] = true
				t.follower(f)
			}
		}
	}
}

// ordered puts what differs by itself before what is good, and leaves what
// follows from another to the end: by then it was shown under its culprit.
func ordered(all []appraise.Component) []appraise.Component {
	rank := func(c appraise.Component) int {
		switch {
		case c.State == appraise.Follows:
			return 2
		case c.Result == appraise.Contraindicated, c.Result == appraise.Warning:
			return 0
		}
		return 1
	}
	sorted := slices.Clone(all)
	slices.SortStableFunc(sorted, func(a, b appraise.Component) int { return rank(a) - rank(b) })
	return sorted
}

func (t *table) component(c appraise.Component, width int) {
	mark := " "
	if c.FirstDiverging {
		mark = ">"
	}
	state := t.paint(colourOf(c.Result), pad(string(c.State), 13))
	rows := c.Evidence
	if c.Result == appraise.Contraindicated {
		rows = slices.DeleteFunc(slices.Clone(rows), func(r appraise.Row) bool { return r.Good })
	}
	if len(rows) == 0 {
		t.line("%s %s  %s", mark, pad(clean(c.Name), width), state)
	}
	for i, r := range rows {
		name := clean(c.Name)
		if i > 0 {
			mark, name, state = " ", "", pad("", 13)
		}
		t.line("%s %s  %s  %3d  %s  %s", mark, pad(name, width), state, r.PCR, pad(short(r.Expected), 12), short(r.Actual))
	}
	t.below(c)
}

func (t *table) below(c appraise.Component) {
	if c.Note != "" {
		t.line("      %s", clean(c.Note))
	}
	for _, l := range c.Diff {
		colour := red
		if l.Op == "+" {
			colour = yellow
		}
		t.line("      %s", t.paint(colour, fmt.Sprintf("%s %4d  %s", clean(l.Op), l.Number, clean(l.Text))))
	}
}

func (t *table) follower(c appraise.Component) {
	t.line("      %s follows from this", clean(c.Name))
}

func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(s)))
}

// short returns the first bytes of a digest.
func short(d []byte) string {
	const shown = 5
	switch {
	case len(d) == 0:
		return "-"
	case len(d) <= shown:
		return hex.EncodeToString(d)
	}
	return hex.EncodeToString(d[:shown]) + "…"
}
