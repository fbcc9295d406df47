package config

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/netlink"
)

// gone turns the errors of a device, qdisc or family that went while its list
// was read, or that this kernel has not, into none: there is nothing in it.
func gone(err error) error {
	for _, e := range []error{unix.ENODEV, unix.ENOENT, unix.EINVAL, unix.EOPNOTSUPP} {
		if errors.Is(err, e) {
			return nil
		}
	}
	return err
}

// actionsAt are the attributes in which each kind of filter keeps its actions
// (TCA_*_ACT in include/uapi/linux/pkt_cls.h).
var actionsAt = map[string]uint16{
	"u32": 7, "fw": 4, "route": 6, "flow": 9, "basic": 3, "cgroup": 1, "bpf": 1, "flower": 3, "matchall": 2, "rsvp": 6, "rsvp6": 6, "tcindex": 7,
}

// Attributes of a BPF filter (include/uapi/linux/pkt_cls.h).
const (
	bpfName = 7  // TCA_BPF_NAME
	bpfID   = 11 // TCA_BPF_ID
)

// filter lists what one filter does that copies or diverts. device and parent
// say where it was found; zero: where the message says.
func (s *space) filter(m netlink.Message, device int32, parent uint32) ([]finding, error) {
	t, err := parseTC(m)
	if err != nil {
		return nil, err
	}
	options, err := attributes(t.attrs[unix.TCA_OPTIONS].Data)
	if err != nil {
		return nil, fmt.Errorf("options of a %s filter: %w", t.kind(), err)
	}
	if device == 0 {
		device, parent = t.device, t.parent
	}
	if device == sharedBlock || t.handle == 0 && len(options) == 0 {
		return nil, nil // of a block the lists of its devices tell; a head without a filter does nothing
	}
	where := spot{s.links.name(device), hook(parent), t}
	actions, err := s.actions(actionList(t.kind(), options), where.subject())
	if err != nil {
		return nil, fmt.Errorf("actions of %s: %w", where.subject(), err)
	}
	for i := range actions {
		actions[i].In = where.device
		actions[i].Detail = where.text() + ": " + actions[i].Detail
	}
	if t.kind() == "bpf" {
		actions = append(actions, s.program(where, options)...)
	}
	return actions, nil
}

// actionList is where a filter has its actions. Of a kind that is not known
// here, it is what looks like such a list.
func actionList(kind string, options map[uint16]netlink.Attr) []byte {
	if at, known := actionsAt[kind]; known {
		return options[at].Data
	}
	for _, a := range options {
		first, err := attributes(a.Data)
		if err != nil || len(first) == 0 {
			continue
		}
		if action, err := attributes(first[1].Data); err == nil && action[actKind].String() != "" && len(action[actOptions].Data) > 0 {
			return a.Data
		}
	}
	return nil
}

// spot is where a filter is.
type spot struct {
	device, hook string
	filter       tcMessage
}

// priority and chain order the filters of a hook.
func (w spot) priority() uint32 { return w.filter.info >> 16 }
func (w spot) chain() uint32    { return w.filter.attrs[unix.TCA_CHAIN].Uint32() }

func (w spot) subject() string {
	return fmt.Sprintf("tc/%s/%s/%d/%d/%x", w.device, w.hook, w.chain(), w.priority(), w.filter.handle)
}

func (w spot) text() string {
	text := fmt.Sprintf("%s %s pref %d %s handle 0x%x", w.device, w.hook, w.priority(), w.filter.kind(), w.filter.handle)
	if w.chain() != 0 {
		text += fmt.Sprintf(" chain %d", w.chain())
	}
	return text
}

// program tells of a filter that is a BPF program of a stranger: it can clone
// and redirect without any action.
func (s *space) program(where spot, options map[uint16]netlink.Attr) []finding {
	id := options[bpfID].Uint32()
	if s.config.Ours != nil && id != 0 && s.config.Ours(id) {
		return nil
	}
	o := mirror.Observation{
		Kind: mirror.Rule, Detector: "tc", Subject: where.subject(), Cause: "tc bpf program", In: where.device,
		Detail: where.text() + ": " + s.programText(id),
	}
	if name := options[bpfName].String(); name != "" {
		o.Detail += fmt.Sprintf(", which calls itself %q", name)
	}
	if s.config.Program != nil && id != 0 {
		if _, copies := s.config.Program(id); !copies {
			o.Harmless = true
		}
	}
	return []finding{{Observation: o}}
}
