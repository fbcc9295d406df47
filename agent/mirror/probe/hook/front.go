package hook

import (
	"fmt"
	"strings"

	"github.com/cilium/ebpf"

	"waxseal/agent/mirror"
)

// strangers tells whether anything stands in front of a seat that is not the
// same program as ours: another watch may run on the same machine.
func (g *Guard) strangers(s side, seat *seat, before []intruder) (mirror.Observation, bool) {
	if len(before) == 0 {
		return mirror.Observation{}, false
	}
	if seat.twins == nil {
		seat.twins = twins{}
	}
	o := mirror.Observation{Cause: "something stands in front of the hook"}
	var texts []string
	for _, i := range before {
		if i.program != 0 && seat.twins.has(ebpf.ProgramID(i.program), g.programs()[s]) {
			continue
		}
		texts = append(texts, describe(i))
		if o.Process.PID == 0 {
			o.Process = holder(i.program, i.link)
		}
	}
	o.Detail = strings.Join(texts, ", ")
	return o, len(texts) > 0
}

// twins remembers which programs are the same as ours. The kernel gives a
// number to no other program before it has used up all (2^31).
type twins map[ebpf.ProgramID]bool

// has compares tags: a digest of the instructions, without the maps that they
// refer to (kernel/bpf/core.c, bpf_prog_calc_tag). What has our instructions
// lets every packet pass, as we do.
func (t twins) has(id ebpf.ProgramID, ours *ebpf.Program) bool {
	same, known := t[id]
	if !known {
		same = sameTag(id, ours)
		t[id] = same
	}
	return same
}

func sameTag(id ebpf.ProgramID, ours *ebpf.Program) bool {
	theirs, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return false
	}
	defer theirs.Close()
	a, errA := theirs.Info()
	b, errB := ours.Info()
	return errA == nil && errB == nil && a.Type == b.Type && a.Tag == b.Tag
}

// describe adds the name of a program to what is known of it.
func describe(i intruder) string {
	name := programName(i.program)
	if name == "" || strings.Contains(i.text, name) {
		return i.text
	}
	return fmt.Sprintf("%s %q", i.text, name)
}

func programName(id uint32) string {
	if id == 0 {
		return ""
	}
	p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
	if err != nil {
		return ""
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil {
		return ""
	}
	return info.Name
}

// guardXDP reports a program that sees, and may take, packets before any hook.
func (g *Guard) guardXDP(p *port, now xdp) {
	if now == p.xdp {
		return
	}
	was := p.xdp
	p.xdp = now
	if was.program != 0 {
		o := p.tamper("xdp/", "the XDP program is gone", fmt.Sprintf("it was program %d", was.program))
		o.Gone = true
		g.say(o)
	}
	if now.program != 0 {
		detail := fmt.Sprintf("%s mode, program %d %q", modes[now.mode], now.program, programName(now.program))
		o := p.tamper("xdp/", "an XDP program stands in front of the hook", detail)
		o.Process = holder(now.program, 0)
		g.say(o)
	}
}
