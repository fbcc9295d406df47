package netlink

import (
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func refusalBody(code int32, text string) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(code))
	b = append(b, make([]byte, unix.SizeofNlMsghdr)...)
	return AppendString(b, unix.NLMSGERR_ATTR_MSG, text)
}

func TestAnAnswerEndsAsTheKernelSays(t *testing.T) {
	entry := func(flags uint16, seq uint32) []byte {
		return appendMessage(nil, unix.RTM_NEWLINK, flags, seq, []byte("an entry"))
	}
	end := func(kind, flags uint16, body []byte) []byte { return appendMessage(nil, kind, flags, 7, body) }
	zero := make([]byte, 4)
	for name, c := range map[string]struct {
		datagrams [][]byte
		entries   int
		ended     bool
		want      error
	}{
		"a dump":                         {[][]byte{append(entry(0, 7), entry(0, 7)...), end(unix.NLMSG_DONE, 0, zero)}, 2, true, nil},
		"a dump that goes on":            {[][]byte{entry(0, 7)}, 1, false, nil},
		"another conversation":           {[][]byte{entry(0, 6), end(unix.NLMSG_DONE, 0, zero)}, 0, true, nil},
		"a list that changed":            {[][]byte{entry(unix.NLM_F_DUMP_INTR, 7), entry(0, 7), end(unix.NLMSG_DONE, 0, zero)}, 2, true, ErrChanged},
		"a list that changed at its end": {[][]byte{entry(0, 7), end(unix.NLMSG_DONE, unix.NLM_F_DUMP_INTR, zero)}, 1, true, ErrChanged},
		"a refusal":                      {[][]byte{end(unix.NLMSG_ERROR, 0, refusalBody(-int32(unix.EPERM), ""))}, 0, true, unix.EPERM},
		"a dump that failed":             {[][]byte{entry(0, 7), end(unix.NLMSG_DONE, 0, refusalBody(-int32(unix.EIO), "")[:4])}, 1, true, unix.EIO},
		"a short acknowledgement":        {[][]byte{end(unix.NLMSG_ERROR, 0, zero[:2])}, 0, true, ErrMalformed},
		"the kernel's overrun":           {[][]byte{end(unix.NLMSG_OVERRUN, 0, nil), end(unix.NLMSG_DONE, 0, zero)}, 0, true, ErrOverrun},
		"a cut message":                  {[][]byte{entry(0, 7)[:18]}, 0, true, ErrMalformed},
		"nothing after the end":          {[][]byte{append(end(unix.NLMSG_DONE, 0, zero), entry(0, 7)...)}, 0, true, nil},
	} {
		entries := 0
		a := answer{seq: 7, each: func(Message) error { entries++; return nil }}
		for _, d := range c.datagrams {
			a.take(d)
		}
		if entries != c.entries || a.ended != c.ended || !errors.Is(a.err, c.want) || (c.want == nil) != (a.err == nil) {
			t.Errorf("%s: %d entries, ended %v, error %v; want %d, %v, %v", name, entries, a.ended, a.err, c.entries, c.ended, c.want)
		}
	}
}

func TestTheKernelsWordsAreInTheError(t *testing.T) {
	m := Message{Type: unix.NLMSG_ERROR, Flags: unix.NLM_F_ACK_TLVS, Body: refusalBody(-int32(unix.EINVAL), "no such\xff priority")}
	if got := refusal(m).Error(); got != "invalid argument: no such? priority" {
		t.Errorf("error %q", got)
	}
}

func TestAttributesComeBackAsTheyWereWritten(t *testing.T) {
	b := AppendString(nil, 3, "r0")
	b = AppendUint32(b, 4, 77)
	b = AppendNested(b, 5, AppendAttr(nil, 1, []byte{9}))
	var got []Attr
	for a, err := range Attributes(b) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, a)
	}
	if len(got) != 3 || got[0].String() != "r0" || got[1].Uint32() != 77 || !got[2].Nested || got[2].Type != 5 {
		t.Errorf("read %+v", got)
	}
}

// FuzzMessages gives the walkers what no kernel would send: they end, and all
// that they yield lies inside of it.
func FuzzMessages(f *testing.F) {
	link := AppendNested(AppendString(linkBody(1), unix.IFLA_IFNAME, "lo"), unix.IFLA_LINKINFO, AppendString(nil, unix.IFLA_INFO_KIND, "veth"))
	f.Add(appendMessage(nil, unix.RTM_NEWLINK, 0, 1, link))
	f.Add(appendMessage(nil, unix.NLMSG_ERROR, unix.NLM_F_ACK_TLVS, 1, refusalBody(-22, "why")))
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		for m, err := range Messages(b) {
			if err != nil {
				break
			}
			total += unix.SizeofNlMsghdr + len(m.Body)
			_ = refusal(m)
			rest, err := m.Rest(unix.SizeofIfInfomsg)
			if err != nil {
				continue
			}
			inside := 0
			for a, err := range Attributes(rest) {
				if err != nil {
					break
				}
				inside += attrHeader + len(a.Data)
				_ = a.String()
			}
			if inside > len(rest) {
				t.Fatalf("%d bytes of attributes in %d", inside, len(rest))
			}
		}
		if total > len(b) {
			t.Fatalf("%d bytes of messages in %d", total, len(b))
		}
		a := answer{seq: 1, each: func(Message) error { return nil }}
		a.take(b)
	})
}
