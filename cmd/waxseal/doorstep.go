package main

import (
	"io"

	"waxseal/fleet/delivery"
)

// showReport prints the report of a doorstep check and returns its exit code.
func (a *app) showReport(format outputFormat, r delivery.Report) error {
	if format == jsonFormat {
		b, err := r.Encode()
		if err != nil {
			return err
		}
		if _, err := a.stdout.Write(b); err != nil {
			return err
		}
		return outcomeCode(r.Outcome)
	}
	t := table{paint: paintFor(a.stdout)}
	t.report(r)
	if _, err := io.WriteString(a.stdout, t.String()); err != nil {
		return err
	}
	return outcomeCode(r.Outcome)
}

// outcomeCode returns the exit code of an outcome: 0 is said for nothing but a
// device that was accepted.
func outcomeCode(o delivery.Outcome) error {
	switch o {
	case delivery.Accepted:
		return nil
	case delivery.Unreachable:
		return exitCode(exitUnreachable)
	case delivery.Unproven:
		return exitCode(exitError)
	}
	return exitCode(exitFailed)
}

func (t *table) report(r delivery.Report) {
	t.line("%s", t.outcome(r))
	t.line("")
	if s := r.Shipment; s != nil {
		t.line("device      %s, %s by %s", clean(s.Serial), clean(s.Product), clean(s.Maker))
		t.line("order       %s, packed %s", clean(s.Order), s.Packed.Format("2006-01-02 15:04 UTC"))
		t.line("tape        %s: is this the number on the box?", clean(s.SealID))
	}
	if s := r.Since; s != nil {
		t.line("starts      %d since packing, this one included; promised were at most %d", s.Resets, s.Promised)
	}
	if r.Boot != nil {
		t.line("assurance   %s: %s", r.Boot.Assurance, assuranceText[r.Boot.Assurance])
	}
	t.line("checked     %s", r.Checked.Format("2006-01-02 15:04:05 UTC"))
	for _, reason := range r.Reasons {
		t.line("reason      %s", clean(reason))
	}
	for _, warning := range r.Warnings {
		t.line("warning     %s", clean(warning))
	}
	t.findings(r.Checks)
}

// outcome says the whole in one line.
func (t *table) outcome(r delivery.Report) string {
	who, by := "The device", "its maker"
	if s := r.Shipment; s != nil {
		who, by = clean(s.Serial), clean(s.Maker)
	}
	switch r.Outcome {
	case delivery.Accepted:
		return t.paint(green, "ACCEPTED") + ": this is " + who + " as " + by + " has packed it."
	case delivery.Unproven:
		return t.paint(yellow, "NOT PROVEN") + ": nothing speaks against " + who + ", but not all that must be was looked at. Do not accept it yet."
	case delivery.Unreachable:
		return t.paint(yellow, "UNREACHABLE") + ": no answer; nothing is known of the device."
	}
	return t.paint(red, "REFUSED") + ": this is not proven to be " + who + " as " + by + " has packed it."
}

var stateColour = map[delivery.State]int{delivery.Good: green, delivery.Bad: red, delivery.Unknown: yellow, delivery.Skipped: dim}

func (t *table) findings(checks []delivery.Finding) {
	if len(checks) == 0 {
		return
	}
	t.line("")
	t.line("  %-15s %-8s", "CHECK", "RESULT")
	for _, c := range checks {
		mark := " "
		if c.State == delivery.Bad {
			mark = ">"
		}
		t.line("%s %-15s %s%*s %s", mark, c.Check, t.paint(stateColour[c.State], string(c.State)), 8-len(c.State), "", clean(c.Text))
	}
}
