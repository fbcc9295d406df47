package appraise

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"waxseal/measure"
	"waxseal/measure/evidence"
	"waxseal/measure/finding"
)

// coverageName is the component that says what the watch on traffic can see.
const coverageName = "mirror/capabilities"

// judgeRuntime judges what the running agent has recorded. Whoever holds the
// router can record that a finding has ended, but not that it never was: an
// alarm is never good again before the router starts anew.
func (a *appraisal) judgeRuntime(r measure.Record) {
	out := agentRow(r, a.end())
	subject, step, isFinding := finding.Split(r.Name)
	switch {
	case r.Class() == "phase" && r.Content == sha256.Sum256([]byte(r.Name)):
		out.state = Informational
		a.bounded(r.Subject(), out)
	case strings.HasPrefix(r.Name, finding.Capabilities):
		a.coverage = &r
		out.state = Informational
		a.bounded(coverageName, out)
	case strings.HasPrefix(r.Name, finding.Inventory):
		out.state = Informational
		name := strings.TrimSuffix(finding.Inventory, "/")
		a.bounded(name, out)
		a.note(name, a.inventory(r.Content))
	case strings.HasPrefix(r.Name, finding.Stopped):
		out.state = Past
		a.bounded("mirror/watch", out)
		a.note("mirror/watch", "the watch on traffic did not run all the time")
	case isFinding:
		a.judgeStep(subject, step, r, out)
	case r.Class() == "mirror":
		out.state = Finding
		a.bounded(r.Subject(), out)
	default:
		a.addUnknown(r, a.end())
	}
}

// judgeStep judges one step of a finding.
func (a *appraisal) judgeStep(subject string, step finding.Step, r measure.Record, out row) {
	text := a.describe(r.Content)
	switch step {
	case finding.Alarm:
		out.state = Finding
	case finding.Notice:
		out.state = Noticed
	case finding.Ended:
		out.state = Informational
		a.conclude(subject)
		text = "ended: " + text
	default:
		out.state = Informational
	}
	a.bounded(subject, out)
	a.note(subject, text)
}

// conclude makes what was found of a subject past.
func (a *appraisal) conclude(subject string) {
	p := a.parts[subject]
	if p == nil {
		return
	}
	for i, r := range p.rows {
		if r.state == Finding {
			p.rows[i].state = Past
		}
		if r.state == Noticed {
			p.rows[i].state = Informational
		}
	}
}

// note says something of a part, if there is one of that name.
func (a *appraisal) note(name, text string) {
	if p := a.parts[name]; p != nil {
		p.note = text
	}
}

// describe says in one line what a finding's content says.
func (a *appraisal) describe(sum [sha256.Size]byte) string {
	content, ok := a.v.Content(sum)
	if !ok {
		return "details not available"
	}
	f, err := finding.Parse(content)
	if err != nil {
		return "details cannot be read"
	}
	words := []string{f.Cause}
	add := func(format, text string) {
		if text != "" {
			words = append(words, fmt.Sprintf(format, text))
		}
	}
	if f.Authorised != "" {
		words = append([]string{"authorised by " + f.Authorised}, words...)
	}
	add("ports %s", strings.Join(f.Ports, " → "))
	add("of %s", f.Inner)
	add("carried %s", f.Outer)
	add("by %s", f.Process)
	if f.Rate >= 1 {
		words = append(words, fmt.Sprintf("about %.0f packets a second", f.Rate))
	}
	words = append(words, fmt.Sprintf("first seen %s", f.First.UTC().Format(time.RFC3339)))
	return evidence.Escape(strings.Join(words, "; "))
}

// judgeCoverage says what the watch could not see, so that no finding never
// means more than it is.
func (a *appraisal) judgeCoverage() {
	if !a.v.Quoted(a.profile.Runtime) {
		return
	}
	if a.coverage == nil {
		a.parts[coverageName] = &part{name: coverageName, note: "no watch on copied traffic has reported"}
		return
	}
	p := a.parts[coverageName]
	content, ok := a.v.Content(a.coverage.Content)
	list, err := finding.ParseCoverage(content)
	if !ok || err != nil {
		p.rows[0].state, p.note = NotCovered, "what the watch can see is not available"
		return
	}
	var missing []string
	for _, m := range list.Missing() {
		missing = append(missing, evidence.Escape(fmt.Sprintf("%s %s (%s)", m.Name, m.State, m.Cause)))
	}
	if len(missing) > 0 {
		p.rows[0].state, p.note = NotCovered, strings.Join(missing, "; ")
		return
	}
	p.note = fmt.Sprintf("all %d ways of the watch are covered", len(list.Parts))
}

// beside returns the result of a component whose worst state is s.
func (s State) beside(name string) Result {
	if s == NotCovered || s == Noticed && strings.HasPrefix(name, "runtime/") {
		return None
	}
	return Warning
}

// warnings says of each component why it is no better than a warning.
func warnings(all []Component) []string {
	var out []string
	for _, c := range all {
		switch c.State {
		case Noticed, Past, NotCovered:
			text := string(c.State) + " " + c.Name
			if c.Note != "" {
				text += ": " + c.Note
			}
			out = append(out, text)
		}
	}
	return out
}

// inventory says how much there was of each kind when the watch began.
func (a *appraisal) inventory(sum [sha256.Size]byte) string {
	content, ok := a.v.Content(sum)
	if !ok {
		return "details not available"
	}
	list, err := finding.ParseThings(content)
	if err != nil {
		return "details cannot be read"
	}
	var words []string
	count := list.Count()
	for _, kind := range slices.Sorted(maps.Keys(count)) {
		words = append(words, evidence.Escape(fmt.Sprintf("%s: %d", kind, count[kind])))
	}
	return strings.Join(words, ", ")
}
