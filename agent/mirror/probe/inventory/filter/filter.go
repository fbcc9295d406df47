// Package filter decides whether the classic BPF filter of a packet socket can
// let transit traffic through.
//
// It does not try packets: a back door's filter accepts only what its maker
// sends, and no sample would hold that. It walks every path through the program
// to an acceptance and asks what a packet must look like to get there. A filter
// is harmless only if each of these paths fixes header bytes that make the
// packet one of a link's own protocols (control.go). Whatever it does not
// understand counts as transit traffic. It is pure.
package filter

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/bpf"
)

// Layout is where a filter finds the headers.
type Layout int

const (
	// Ethernet is a frame from its MAC header on: SOCK_RAW on a device with one.
	Ethernet Layout = iota
	// Network is a packet from its network header on: SOCK_DGRAM, and devices
	// without a link header such as tunnels.
	Network
)

// Verdict is what can get through a filter.
type Verdict struct {
	Harmless bool
	// Takes tells what gets through: the protocols if it is harmless, otherwise
	// what is known of one packet that does.
	Takes string
}

const (
	maxSteps = 200_000 // instructions walked over all paths
	maxWords = 4       // protocols that are named
)

// Judge looks at a filter of a socket that takes frames of an Ethernet type
// (ETH_P_ALL: of all). An empty filter lets everything through.
func Judge(program []bpf.RawInstruction, protocol uint16, layout Layout) Verdict {
	if len(program) == 0 {
		return Verdict{Takes: "everything"}
	}
	w := walker{program: program, layout: layout}
	w.walk(begin(protocol, layout))
	switch {
	case w.open != "":
		return Verdict{Takes: w.open}
	case len(w.words) == 0:
		return Verdict{Harmless: true, Takes: "nothing"}
	}
	slices.Sort(w.words)
	if len(w.words) > maxWords {
		w.words = append(w.words[:maxWords], "…")
	}
	return Verdict{Harmless: true, Takes: strings.Join(w.words, ", ")}
}

// walker goes through the paths of one program.
type walker struct {
	program []bpf.RawInstruction
	layout  Layout
	steps   int
	words   []string // what the harmless paths take
	open    string   // what a path takes that is not harmless; empty: none yet
}

// walk follows one path from s.at and branches where both ways are possible.
func (w *walker) walk(s *state) {
	for w.open == "" {
		if word := s.control(w.layout); word != "" {
			if !slices.Contains(w.words, word) {
				w.words = append(w.words, word)
			}
			return // whatever follows, it is one of these packets
		}
		if w.steps++; w.steps > maxSteps {
			w.open = "unknown: the filter has too many paths"
			return
		}
		if s.at < 0 || s.at >= len(w.program) {
			w.open = "unknown: the filter has no end"
			return
		}
		ins := w.program[s.at].Disassemble()
		s.at++
		if w.ends(s, ins) {
			return
		}
	}
}

// ends does one instruction and tells whether the path is over.
func (w *walker) ends(s *state, ins bpf.Instruction) bool {
	switch ins := ins.(type) {
	case bpf.RetConstant:
		w.accept(s, ins.Val != 0)
		return true
	case bpf.RetA:
		w.accept(s, s.a != value{})
		return true
	case bpf.Jump:
		s.at += int(ins.Skip)
	case bpf.JumpIf:
		return w.branch(s, ins.Cond, value{k: ins.Val}, int(ins.SkipTrue), int(ins.SkipFalse))
	case bpf.JumpIfX:
		return w.branch(s, ins.Cond, s.x, int(ins.SkipTrue), int(ins.SkipFalse))
	case bpf.RawInstruction:
		w.open = fmt.Sprintf("unknown: instruction %d is not understood", s.at-1)
		return true
	default:
		return s.compute(ins)
	}
	return false
}

func (w *walker) accept(s *state, accepted bool) {
	if accepted {
		w.open = s.String()
	}
}

// branch walks the true side and leaves s on the false side.
func (w *walker) branch(s *state, test bpf.JumpTest, with value, skipTrue, skipFalse int) bool {
	yes := s.copy()
	yes.at += skipTrue
	s.at += skipFalse
	if yes.learn(test, with, true) {
		w.walk(yes)
	}
	return !s.learn(test, with, false)
}
