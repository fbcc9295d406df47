package config

import (
	"strings"
	"sync"

	"waxseal/agent/mirror/probe/inventory/program"
)

// maxPrograms bounds what is remembered of programs. Their ids are not used
// again before four billion more.
const maxPrograms = 4096

// programs knows what BPF programs can do to packets, by the functions they call.
type programs struct {
	symbols *program.Symbols

	mu    sync.Mutex // guards what follows
	known map[uint32]ability
}

type ability struct {
	does   string
	copies bool
}

// newPrograms reads the kernel's symbols once: that takes a tenth of a second.
// A failure is in what is said of each program.
func newPrograms() *programs {
	symbols, _ := program.LoadSymbols("/proc/kallsyms")
	return &programs{symbols: symbols, known: map[uint32]ability{}}
}

// of says what a program does, and whether it can take copies. What cannot be
// found out may copy.
func (p *programs) of(id uint32) (does string, copies bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a, ok := p.known[id]; ok {
		return a.does, a.copies
	}
	one, err := program.Read(id, p.symbols)
	if err != nil {
		return err.Error(), true
	}
	a := ability{one.Text, one.Unknown != "" || one.Diverts()}
	switch {
	case one.Unknown != "":
		a.does += ", of unknown calls: " + one.Unknown
	case len(one.Copies) > 0:
		a.does += ", calls " + strings.Join(one.Copies, ", ")
	}
	if len(p.known) >= maxPrograms {
		p.known = map[uint32]ability{}
	}
	p.known[id] = a
	return a.does, a.copies
}
