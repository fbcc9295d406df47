package inventory

import (
	"context"
	"fmt"
	"strings"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/inventory/holder"
	"waxseal/agent/mirror/probe/inventory/module"
	"waxseal/agent/mirror/probe/inventory/syscalls"
)

const moduleList = "module"

// tellModules tells the modules and the kernel's taint. A module that is missing
// in one of the kernel's two views is told as hidden if it was so at the last
// look too: it may have come or gone between the two.
func (r *round) tellModules() {
	found, err := module.Modules("/proc", "/sys")
	if err != nil {
		r.fail("modules", err)
		return
	}
	list, hidden := []mirror.Observation{}, map[string]bool{}
	for _, m := range found {
		hidden[m.Name] = m.Hidden() != ""
		list = append(list, describeModule(m, r.hidden[m.Name]))
	}
	r.Inventory.hidden = hidden
	if taint, err := describeTaint(); err != nil {
		r.fail("taint", err)
	} else {
		list = append(list, taint)
	}
	r.seen[moduleList] = list
}

func describeModule(m module.Module, again bool) mirror.Observation {
	o := mirror.Observation{Kind: mirror.Module, Detector: "/proc/modules", Subject: "module/" + holder.Printable(m.Name, 64), Cause: "kernel module"}
	if from := m.Hidden(); from != "" && again {
		o.Detector, o.Cause = "/sys/module", "kernel module hidden from "+from
	}
	if m.Taints != "" {
		o.Detail = "taints the kernel: " + holder.Printable(m.Taints, 16)
	}
	return o
}

func describeTaint() (mirror.Observation, error) {
	mask, words, err := module.Taint("/proc")
	return mirror.Observation{
		Kind: mirror.Module, Detector: "/proc/sys/kernel/tainted", Subject: "kernel/taint", Cause: "kernel taint",
		Detail: join(fmt.Sprint(mask), strings.Join(words, ", ")), Harmless: mask == 0,
	}, err
}

// listenModules gives an event each time that a module comes or goes, until ctx
// is done.
func (i *Inventory) listenModules(ctx context.Context, events chan<- syscalls.Event) {
	stop := context.AfterFunc(ctx, func() { i.events.Close() })
	defer stop()
	for i.events.Next() == nil {
		select {
		case events <- syscalls.Event{Doing: syscalls.Modules}:
		default: // a round is due anyway
		}
	}
}
