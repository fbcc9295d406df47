package mirror

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// incident writes a matter down as it is now.
func (j *Judge) incident(m *matter) Incident {
	facts := slices.SortedFunc(slices.Values(m.facts), func(a, b *fact) int {
		return cmp.Or(a.first.Compare(b.first), strings.Compare(a.key, b.key))
	})
	in := Incident{
		ID: m.id, Time: j.now, Kind: m.root.Kind, State: Open, Severity: Info,
		Subject: m.root.Subject, Netns: m.root.Netns, In: m.root.In, Copy: m.root.leaves(),
		First: facts[0].first, Detector: facts[0].Detector, Baseline: m.root.Baseline,
	}
	if m.over(j.now) {
		in.State = Ended
	}
	in.Evidence, in.Count = slices.Clone(m.past.Evidence), m.past.Count
	if m.past.ID != "" {
		in.First, in.Detector = m.past.First, m.past.Detector
	}
	for _, f := range facts {
		in.gather(f, j)
	}
	in.Evidence = in.Evidence[:min(len(in.Evidence), maxEvidence)]
	for _, f := range counted(facts) {
		_, rate := f.sampled(j.now)
		in.Count, in.Rate = in.Count+f.count, in.Rate+rate
	}
	if m.root.counts() && proof(facts) == nil {
		in.Count += m.root.count
	}
	if seen := proof(facts); seen != nil {
		in.Kind, in.Inner, in.Outer, in.Encap = seen.Kind, seen.Inner, seen.Outer, seen.Encap
		in.In, in.Copy = seen.In, seen.leaves()
	}
	if in.Copy == "" {
		in.Copy = m.root.sendsTo()
	}
	in.Process = holder(m.root, facts)
	for _, p := range []string{in.In, in.Copy} {
		if p != "" && !slices.Contains(in.Ports, p) {
			in.Ports = append(in.Ports, p)
		}
	}
	in.Cause = cause(m.root, in.Process, facts)
	j.weigh(m, &in)
	return in
}

// gather adds what one fact says.
func (in *Incident) gather(f *fact, j *Judge) {
	if f.last.After(in.Last) {
		in.Last = f.last
	}
	f.worst = worse(f.worst, j.grave(f))
	in.Severity = worse(in.Severity, f.worst)
	if words := f.words(); !slices.Contains(in.Evidence, words) {
		in.Evidence = append(in.Evidence, words)
	}
}

// copies tells whether a fact counts packets that left more often than they should.
func (f *fact) copies() bool {
	return f.Kind == Duplicate || f.Kind == Inside || f.Kind == Hub || f.Kind == Misroute || f.Kind == Flood
}

// counts tells whether a fact counts something else than copies.
func (f *fact) counts() bool { return f.ofPackets() || f.shelf == self }

// counted are the facts whose packets are copies. The same copy may also be
// seen to leave by another port than routing says, and counts once.
func counted(facts []*fact) []*fact {
	best := proof(facts)
	leaks := best != nil && stronger(best) >= stronger(&fact{Observation: Observation{Kind: Hub}})
	var list []*fact
	for _, f := range facts {
		if f.copies() && (!leaks || f.Kind != Misroute && f.Kind != Flood) {
			list = append(list, f)
		}
	}
	return list
}

// proof is the fact that shows best what happened to packets, or nil.
func proof(facts []*fact) *fact {
	var best *fact
	for _, f := range facts {
		if f.copies() && (best == nil || stronger(f) > stronger(best)) {
			best = f
		}
	}
	return best
}

// stronger orders the kinds of packets by how much they prove.
func stronger(f *fact) int {
	return slices.Index([]Kind{Flood, Misroute, Hub, Duplicate, Inside}, f.Kind)
}

// sendsTo is the device or address that a thing copies to, or "".
func (f *fact) sendsTo() string {
	switch {
	case f.Target == "":
		return f.Copy
	case strings.ContainsAny(f.Target, "/ "):
		return "" // a file
	}
	return f.Target
}

// holder is the process of what explains most.
func holder(root *fact, facts []*fact) Process {
	p, rank := root.Process, 0
	if p != (Process{}) {
		return p
	}
	for _, f := range facts {
		if f.Process != (Process{}) && f.rank() > rank {
			p, rank = f.Process, f.rank()
		}
	}
	return p
}

// severities in the order of how much they matter.
var severities = []Severity{Info, Notice, Alarm}

func worse(a, b Severity) Severity {
	return severities[max(slices.Index(severities, a), slices.Index(severities, b))]
}

// cause says in one sentence what happened: "tc mirred mirror r0 → r2 by tc
// (pid 4711), confirmed by 3 duplicates in 60 ms".
func cause(root *fact, p Process, facts []*fact) string {
	var b strings.Builder
	b.WriteString(root.title())
	b.WriteString(by(p))
	if seen := proof(facts); seen != nil && seen != root {
		fmt.Fprintf(&b, ", confirmed by %s", seen.tally())
	}
	return b.String()
}

func by(p Process) string {
	switch {
	case p.PID == 0:
		return ""
	case p.Comm == "":
		return fmt.Sprintf(" by pid %d", p.PID)
	}
	return fmt.Sprintf(" by %s (pid %d)", p.Comm, p.PID)
}

// title says what a fact is.
func (f *fact) title() string {
	if f.copies() || f.Kind == Early {
		return fmt.Sprintf("%s, %s%s", f.tally(), way(f.In, f.leaves()), f.wrapped())
	}
	title := f.Cause
	switch {
	case title != "":
	case f.Kind == Bypass:
		return "frames of " + f.at() + " passed no hook"
	case f.Kind == Budget:
		return "more is sent to " + destination(f.Observation) + " than its budget"
	default:
		title = string(f.Kind)
	}
	to := f.sendsTo()
	switch {
	case f.In != "" && to != "":
		title += " " + way(f.In, to)
	case f.In != "":
		title += " on " + f.In
	case to != "":
		title += " → " + to
	case f.Kind == Listener, f.Kind == Module, f.Kind == Namespace, f.Kind == Program:
		title += " " + f.Subject // which of many
	}
	return title
}

// nouns of what is counted.
var nouns = map[Kind]string{
	Duplicate: "duplicate", Inside: "copy inside other packets", Misroute: "packet by another port than routing says",
	Hub: "packet flooded though its place is known", Flood: "packet flooded", Early: "packet that left before it came",
}

// tally counts the first packets, as many as decide, so that it does not
// change with each more.
func (f *fact) tally() string {
	n := uint64(0)
	for _, s := range f.earliest {
		n += s.count
	}
	took := f.earliest[len(f.earliest)-1].at.Sub(f.earliest[0].at)
	return fmt.Sprintf("%s in %s", plural(n, nouns[f.Kind]), took.Round(time.Millisecond))
}

func plural(n uint64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	first, rest, _ := strings.Cut(noun, " ")
	if first == "copy" {
		first = "copie"
	}
	return strings.TrimSpace(fmt.Sprintf("%d %ss %s", n, first, rest))
}

func (f *fact) wrapped() string {
	if f.Encap == "" {
		return ""
	}
	to := f.Outer.Destination.String()
	switch {
	case f.many:
		to = "many addresses"
	case f.quotes():
		to = "their senders"
	}
	return fmt.Sprintf(" in %s to %s", f.Encap, to)
}

// words are a fact as one line of evidence.
func (f *fact) words() string {
	line := f.Detector + ": " + f.title() + by(f.Process)
	if f.Detail != "" {
		line += ": " + f.Detail
	}
	return line
}
