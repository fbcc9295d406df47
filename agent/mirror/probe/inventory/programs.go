package inventory

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/inventory/holder"
	"waxseal/agent/mirror/probe/inventory/program"
)

// programs are the BPF programs and links that are known. Reading one takes
// some 0.1 ms, so only new ids are read.
type programs struct {
	limit   int
	symbols *program.Symbols
	known   map[uint32]program.Program
	links   map[uint32]program.Link
	ports   map[uint64][]program.Attachment // by inode of the namespace
	asked   time.Time                       // when devices were last asked what is at them
	took    time.Duration                   // that, in all namespaces
	fresh   []uint32                        // programs that were read just now
	loaders map[uint32]mirror.Process       // who loaded a program, where that was seen
	more    bool                            // there are more than are looked at
}

// maxPrograms bounds the walk of ids, as the measurement at boot does.
const maxPrograms = 10_000

// attachEvery is how often devices are asked for their programs when no id came
// or went: a loaded program can be attached without a link. With many devices
// it is less often, so that it takes at most one part in attachShare.
const (
	attachEvery = time.Second
	attachShare = 50
)

// look walks the ids. It tells whether something came or went.
func (p *programs) look(slow bool) (changed bool, err error) {
	ids, more, err := program.IDs(p.limit)
	if err != nil {
		return false, err
	}
	linkIDs, moreLinks, err := program.LinkIDs(p.limit)
	if err != nil {
		linkIDs = nil // before 5.8 there are none
	}
	p.more = more || moreLinks
	if slow { // a link's program can be replaced under the same id
		clear(p.links)
	}
	came, err := p.read(ids)
	linked, failed := p.readLinks(linkIDs)
	return came || linked, errors.Join(err, failed)
}

func (p *programs) read(ids []uint32) (changed bool, failed error) {
	for _, id := range ids {
		if _, known := p.known[id]; known {
			continue
		}
		one, err := program.Read(id, p.symbols)
		switch {
		case errors.Is(err, program.ErrGone):
		case err != nil:
			failed = errors.Join(failed, err)
		default:
			p.known[id], changed = one, true
			p.fresh = append(p.fresh, id)
		}
	}
	changed = forget(p.known, ids) || changed
	maps.DeleteFunc(p.loaders, func(id uint32, _ mirror.Process) bool { _, known := p.known[id]; return !known })
	return changed, failed
}

func (p *programs) readLinks(ids []uint32) (changed bool, failed error) {
	for _, id := range ids {
		if _, known := p.links[id]; known {
			continue
		}
		one, err := program.ReadLink(id)
		switch {
		case errors.Is(err, program.ErrGone):
		case err != nil:
			failed = errors.Join(failed, err)
		default:
			p.links[id], changed = one, true
		}
	}
	return forget(p.links, ids) || changed, failed
}

// forget drops what is no longer listed.
func forget[T any](known map[uint32]T, ids []uint32) (changed bool) {
	if len(known) == len(ids) {
		return false
	}
	listed := make(map[uint32]bool, len(ids))
	for _, id := range ids {
		listed[id] = true
	}
	maps.DeleteFunc(known, func(id uint32, _ T) bool {
		changed = changed || !listed[id]
		return !listed[id]
	})
	return changed
}

// due tells whether devices have to be asked what is attached to them.
func (p *programs) due(now time.Time, changed bool) bool {
	if !changed && now.Sub(p.asked) < max(attachEvery, attachShare*p.took) {
		return false
	}
	p.asked, p.took = now, 0
	return true
}

// attachments of one namespace, on a thread that is in it.
func (p *programs) attachments(ctx context.Context, inode uint64) error {
	start := time.Now()
	found, err := program.Attachments(ctx, p.limit)
	p.took += time.Since(start)
	if err == nil {
		p.ports[inode] = found
	}
	return err
}

// describe tells one program. at are the namespaces, the home first.
func (p *programs) describe(one program.Program, at []*space) mirror.Observation {
	o := mirror.Observation{Kind: mirror.Program, Detector: "bpf-walk", Subject: subjectOf(one.ID), Cause: "BPF program"}
	var places []string
	for _, k := range at {
		for _, a := range p.ports[k.Inode] {
			if a.Program != one.ID {
				continue
			}
			if o.In == "" {
				o.In, o.Netns = holder.Printable(a.Port, 32), k.name()
			}
			places = append(places, strings.TrimSpace(holder.Printable(a.Place+" "+a.Port+" "+k.name(), 80)))
		}
	}
	slices.Sort(places)
	seesPackets := false
	for _, id := range slices.Sorted(maps.Keys(p.links)) {
		if l := p.links[id]; l.Program == one.ID {
			places = append(places, fmt.Sprintf("link %d: %s", id, holder.Printable(l.Place, 80)))
			seesPackets = seesPackets || onPacketPath(l.Place)
		}
	}
	if one.Diverts() || seesPackets && len(one.Copies) > 0 {
		o.Cause = "BPF program calls " + strings.Join(one.Copies, ", ")
		if !redirects(one.Copies) {
			o.Cause = "BPF program can copy to user space: it calls " + strings.Join(one.Copies, ", ")
		}
	}
	o.Harmless = !one.Packets && !one.Diverts() && !seesPackets
	unknown := ""
	if one.Unknown != "" {
		unknown = "its calls are not known: " + one.Unknown
	}
	o.Detail = join(holder.Printable(one.Text, 128), attached(places), unknown)
	return o
}

const maxPlaces = 6

func attached(places []string) string {
	if len(places) == 0 {
		return ""
	}
	if len(places) > maxPlaces {
		places = append(places[:maxPlaces:maxPlaces], fmt.Sprintf("and %d more", len(places)-maxPlaces))
	}
	return "attached to " + strings.Join(places, ", ")
}

func redirects(calls []string) bool {
	return slices.ContainsFunc(calls, func(name string) bool { return strings.Contains(name, "redirect") })
}

// onPacketPath tells whether a tracing program's place is passed by each packet.
func onPacketPath(place string) bool {
	point, traced := strings.CutPrefix(place, "raw tracepoint ")
	if !traced {
		point, traced = strings.CutPrefix(place, "kprobe ")
	}
	return traced && slices.ContainsFunc([]string{"net_", "netif_", "napi_", "xdp_", "kfree_skb", "consume_skb", "dev_", "__netif", "__dev", "ip_", "ip6_", "skb_", "tcp_v", "udp_"},
		func(prefix string) bool { return strings.HasPrefix(point, prefix) })
}

// describeLink tells one link, for the record: what it holds is the program's matter.
func describeLink(l program.Link) mirror.Observation {
	return mirror.Observation{Kind: mirror.Program, Detector: "bpf-walk", Subject: fmt.Sprintf("link/%d", l.ID), Cause: "BPF link",
		Detail: fmt.Sprintf("%s, program %d", holder.Printable(l.Place, 80), l.Program), Harmless: true}
}

func subjectOf(program uint32) string { return fmt.Sprintf("program/%d", program) }
