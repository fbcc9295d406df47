package netlink

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inNamespace moves the test to a network namespace of its own, which goes
// with the test's thread.
func inNamespace(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("needs network namespaces: %v", err)
	}
}

func dial(t *testing.T, groups ...uint32) *Conn {
	t.Helper()
	c, err := Dial(unix.NETLINK_ROUTE, groups...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func linkBody(index int32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	return b
}

func nameOf(t *testing.T, m Message) string {
	t.Helper()
	rest, err := m.Rest(unix.SizeofIfInfomsg)
	if err != nil {
		t.Fatal(err)
	}
	for a, err := range Attributes(rest) {
		if err != nil {
			t.Fatal(err)
		}
		if a.Type == unix.IFLA_IFNAME {
			return a.String()
		}
	}
	return ""
}

// addBridge makes a device that needs no second one.
func addBridge(t *testing.T, c *Conn, name string) {
	t.Helper()
	body := AppendString(linkBody(0), unix.IFLA_IFNAME, name)
	body = AppendNested(body, unix.IFLA_LINKINFO, AppendString(nil, unix.IFLA_INFO_KIND, "bridge"))
	if _, err := c.Request(t.Context(), unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, body); err != nil {
		t.Fatalf("bridge %s: %v", name, err)
	}
}

func TestAGetIsAnsweredOnce(t *testing.T) {
	answers, err := dial(t).Request(t.Context(), unix.RTM_GETLINK, 0, linkBody(1))
	if err != nil || len(answers) != 1 {
		t.Fatalf("%d answers, %v: want one", len(answers), err)
	}
	if got := nameOf(t, answers[0]); got != "lo" {
		t.Errorf("device 1 is %q, want lo", got)
	}
}

func TestARefusalIsAnErrno(t *testing.T) {
	_, err := dial(t).Request(t.Context(), unix.RTM_GETLINK, 0, linkBody(1<<30))
	if !errors.Is(err, unix.ENODEV) {
		t.Errorf("error %v, want ENODEV", err)
	}
}

func TestARefusalCarriesTheKernelsWords(t *testing.T) {
	c := dial(t)
	if err := c.Strict(); err != nil {
		t.Skipf("needs strict checks of the kernel: %v", err)
	}
	err := c.Dump(t.Context(), unix.RTM_GETLINK, linkBody(7)[:8], func(Message) error { return nil })
	var refused *Error
	if !errors.As(err, &refused) || !strings.Contains(refused.Text, "header") {
		t.Errorf("error %v, want one with the kernel's text", err)
	}
}

func TestADumpGivesEveryDevice(t *testing.T) {
	inNamespace(t)
	c := dial(t)
	want := map[string]bool{"lo": true}
	for i := range 60 { // several datagrams
		name := "wxh-br" + string(rune('A'+i))
		addBridge(t, c, name)
		want[name] = true
	}
	err := c.Dump(t.Context(), unix.RTM_GETLINK, linkBody(0), func(m Message) error {
		delete(want, nameOf(t, m))
		return nil
	})
	if err != nil || len(want) > 0 {
		t.Errorf("error %v, not listed: %v", err, want)
	}
}

func TestAnAbandonedDumpDoesNotDisturbTheNext(t *testing.T) {
	inNamespace(t)
	c := dial(t)
	for i := range 60 {
		addBridge(t, c, "wxh-br"+string(rune('A'+i)))
	}
	stopped := errors.New("enough")
	if err := c.Dump(t.Context(), unix.RTM_GETLINK, linkBody(0), func(Message) error { return stopped }); !errors.Is(err, stopped) {
		t.Fatalf("error %v, want the caller's own", err)
	}
	// As if a deadline had passed in the middle: the request is out, nothing is read.
	if err := c.send(appendMessage(nil, unix.RTM_GETLINK, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, 99, linkBody(0))); err != nil {
		t.Fatal(err)
	}
	n := 0
	err := c.Dump(t.Context(), unix.RTM_GETLINK, linkBody(0), func(Message) error { n++; return nil })
	if err != nil || n < 61 {
		t.Errorf("%d devices, %v: want 61", n, err)
	}
}

func TestNotificationsArrive(t *testing.T) {
	inNamespace(t)
	listener := dial(t, unix.RTNLGRP_LINK)
	addBridge(t, dial(t), "wxh-new")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	seen := false
	for !seen {
		err := listener.Receive(ctx, func(m Message) error {
			seen = seen || m.Type == unix.RTM_NEWLINK && nameOf(t, m) == "wxh-new"
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestPendingTakesWhatIsThereAndWaitsForNothing(t *testing.T) {
	inNamespace(t)
	listener := dial(t, unix.RTNLGRP_LINK)
	seen := 0
	count := func(Message) error { seen++; return nil }
	if err := listener.Pending(count); err != nil || seen != 0 {
		t.Fatalf("%d notifications of nothing, %v", seen, err)
	}
	c := dial(t)
	addBridge(t, c, "wxh-a") // the notifications are queued before the request is acknowledged
	addBridge(t, c, "wxh-b")
	if err := listener.Pending(count); err != nil || seen < 2 {
		t.Errorf("%d notifications, %v: want two or more", seen, err)
	}
}

func TestLostNotificationsAreAnOverrun(t *testing.T) {
	inNamespace(t)
	listener := dial(t, unix.RTNLGRP_LINK)
	if err := listener.Room(1); err != nil { // the kernel's minimum
		t.Fatal(err)
	}
	c := dial(t)
	for i := range 20 {
		addBridge(t, c, "wxh-br"+string(rune('A'+i)))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		err := listener.Receive(ctx, func(Message) error { return nil })
		if errors.Is(err, ErrOverrun) {
			return
		}
		if err != nil {
			t.Fatalf("error %v, want an overrun", err)
		}
	}
}

func TestReceiveEndsWithItsContextAndWithClose(t *testing.T) {
	inNamespace(t)
	c := dial(t, unix.RTNLGRP_LINK)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := c.Receive(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want the context's", err)
	}
	time.AfterFunc(10*time.Millisecond, func() { c.Close() })
	if err := c.Receive(t.Context(), nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("error %v, want closed", err)
	}
}

func TestAMessageOfAnotherProcessIsNotTheKernels(t *testing.T) {
	inNamespace(t)
	c := dial(t, unix.RTNLGRP_LINK)
	var port uint32
	_ = c.raw.Control(func(fd uintptr) {
		name, _ := unix.Getsockname(int(fd))
		port = name.(*unix.SockaddrNetlink).Pid
	})
	forger, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(forger)
	forged := appendMessage(nil, unix.RTM_DELLINK, 0, 0, linkBody(1))
	if err := unix.Sendto(forger, forged, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: port}); err != nil {
		t.Fatalf("the forger cannot send: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err = c.Receive(ctx, func(m Message) error { t.Errorf("took a forged message %+v", m); return nil })
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want nothing to read", err)
	}
}
