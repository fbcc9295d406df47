package hook

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// side is where on a port a program runs.
type side int

const (
	ingress side = iota
	egress
)

var sides = [...]side{ingress, egress}

func (s side) String() string { return [...]string{"ingress", "egress"}[s] }

var (
	// errNoDevice says that the port is no longer in the namespace.
	errNoDevice = errors.New("no such device in this namespace")
	// errMoved says that it is in another one. It is an errNoDevice.
	errMoved = fmt.Errorf("%w: it is in another one", errNoDevice)
)

// way is how programs are put on ports: TCX links, or filters of a clsact qdisc.
type way interface {
	name() Way
	// attach puts p in front of all that the way can put it in front of.
	attach(port uint32, s side, p *ebpf.Program) (hold, error)
	// again puts p in front once more, in the place of old.
	again(old hold, port uint32, s side, p *ebpf.Program) (hold, error)
	// forget says that the port is gone, and all that was on it.
	forget(port uint32)
}

// hold is a program of ours on one side of a port.
type hold interface {
	// look says what is on the side now. errNoDevice: the port is gone.
	look() (sight, error)
	// release takes the program away, and nothing else. What is gone already
	// is no error.
	release() error
	// leave lets go of the program and lets it stay, if it can.
	leave() error
}

// sight is what a look found.
type sight struct {
	ours   bool       // our program is there, as we put it
	lost   string     // otherwise: what happened to it
	before []intruder // what stands in front of it

	unpinned bool // its pin was taken away, and made again
}

// intruder is something that sees packets before we do.
type intruder struct {
	program uint32 // BPF program id; 0: it is none
	link    uint32 // BPF link id; 0: none
	text    string // "tcx program 17", "tc filter of priority 1: u32"
}
