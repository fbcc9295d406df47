package watchtest

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"waxseal/agent/mirror"
)

// tampers is what must be said of hands on the watch itself.
func tampers(cause string) Want {
	return Want{Kinds: []mirror.Kind{mirror.Tamper}, Cause: cause, Severity: mirror.Alarm}
}

// Attacks on the watch. They begin when it runs, and need its hooks.
var attacksOnWatch = []Attack{
	{Name: "hooks of a port detached", OnWatch: true, Want: tampers(R0), Start: detach},
	{Name: "hooks of a port detached by removing its qdisc", OnWatch: true, Want: tampers(R0), Start: func(l *Lab) (func(), error) {
		if err := l.Router.Run("tc", "qdisc", "del", "dev", R0, "clsact"); err != nil {
			return nil, fmt.Errorf("hooks are not on clsact: %w", ErrLacking)
		}
		return func() {}, nil
	}},
	{Name: "port moved to another namespace", OnWatch: true, Want: Want{Kinds: []mirror.Kind{mirror.Tamper, mirror.Device}, Cause: R2, Severity: mirror.Notice}, Start: func(l *Lab) (func(), error) {
		n, err := l.Namespace("far")
		if err != nil {
			return nil, err
		}
		return func() {}, l.Router.Run("ip", "link", "set", R2, "netns", n.Name)
	}},
	{Name: "program that ends the chain before us", OnWatch: true, Want: Want{Kinds: []mirror.Kind{mirror.Tamper, mirror.Program, mirror.Bypass}, Severity: mirror.Alarm}, Start: shadow},
}

// detach takes whatever programs are on the TCX hooks of r0 off them, by force.
func detach(l *Lab) (func(), error) {
	index, err := l.Router.Index(R0)
	if err != nil {
		return nil, err
	}
	found := 0
	for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
		var hooked *link.QueryResult
		err := l.Router.Do(func() (err error) {
			hooked, err = link.QueryPrograms(link.QueryOptions{Target: index, Attach: at})
			return
		})
		if errors.Is(err, ebpf.ErrNotSupported) {
			return nil, fmt.Errorf("TCX: %w", ErrLacking)
		}
		if err != nil {
			return nil, err
		}
		for _, p := range hooked.Programs {
			id, ok := p.LinkID()
			if !ok {
				continue
			}
			hook, err := link.NewFromID(id)
			if err != nil {
				return nil, err
			}
			found++
			err = hook.Detach()
			hook.Close()
			if err != nil {
				return nil, fmt.Errorf("detach: %w", err)
			}
		}
	}
	if found == 0 {
		return nil, fmt.Errorf("no TCX link on %s: %w", R0, ErrLacking)
	}
	return func() {}, nil
}

// shadow puts a program before all others at r0's ingress that lets every
// packet pass and no other program see it.
func shadow(l *Lab) (func(), error) {
	program, err := load(ebpf.SchedCLS, returns(0)) // TC_ACT_OK, TCX_PASS
	if err != nil {
		return nil, err
	}
	defer program.Close()
	index, err := l.Router.Index(R0)
	if err != nil {
		return nil, err
	}
	var hook link.Link
	err = l.Router.Do(func() (err error) {
		hook, err = link.AttachTCX(link.TCXOptions{Interface: index, Program: program, Attach: ebpf.AttachTCXIngress, Anchor: link.Head()})
		return
	})
	if err != nil {
		return nil, fmt.Errorf("TCX: %w: %w", ErrLacking, err)
	}
	return func() { hook.Close() }, nil
}
