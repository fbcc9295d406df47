package agent_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"waxseal/agent"
	"waxseal/agent/findings"
	"waxseal/agent/mirror"
	"waxseal/measure"
	"waxseal/measure/finding"
	"waxseal/measure/wire"
)

// watched starts an enrolled router that reports findings into the book.
func watched(t *testing.T, change func(*agent.Config)) (*lab, *findings.Book) {
	t.Helper()
	var book *findings.Book
	l := newLab(t, newSoftChip(t), func(c *agent.Config) {
		var err error
		if book, err = findings.New(findings.Config{Recorder: c.Recorder.(*measure.Recorder), Profile: measure.Waxseal1}); err != nil {
			t.Fatal(err)
		}
		c.Findings = book
		change(c)
	})
	l.enroll(t)
	return l, book
}

func mirrored(id string) mirror.Incident {
	now := time.Now()
	return mirror.Incident{
		ID: id, Time: now, Kind: mirror.Duplicate, Severity: mirror.Alarm, State: mirror.Open,
		Cause: "tc mirred mirror r0 → r2", Ports: []string{"r0", "r2"}, First: now, Last: now, Detector: "rtnetlink",
	}
}

func TestFindingsAreFollowedLive(t *testing.T) {
	l, book := watched(t, func(*agent.Config) {})
	if err := book.Report(t.Context(), mirrored("before")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	enough := errors.New("enough")
	var told []wire.Told
	err := l.dial(t, l.owner.client(t)).Findings().Follow(ctx, func(f wire.Told) error {
		told = append(told, f)
		if len(told) == 2 {
			return enough
		}
		return book.Report(ctx, mirrored("after"))
	})
	if !errors.Is(err, enough) || told[0].Name != "mirror/duplicate/before/alarm" || told[1].Name != "mirror/duplicate/after/alarm" {
		t.Fatalf("told %+v, %v", told, err)
	}
	if f, err := finding.Parse(told[1].Content); err != nil || f.Cause != mirrored("").Cause || told[1].Index <= told[0].Index {
		t.Errorf("told %+v, %v at %d", f, err, told[1].Index)
	}
}

func TestFollowersAreFewAndTheirTimeEnds(t *testing.T) {
	l, book := watched(t, func(c *agent.Config) { c.Limits.Follow = 300 * time.Millisecond })
	if err := book.Report(t.Context(), mirrored("open")); err != nil {
		t.Fatal(err)
	}
	conn := l.dial(t, l.owner.client(t))
	follow := func(each func(wire.Told) error) error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		return conn.Findings().Follow(ctx, each)
	}
	if err := follow(func(wire.Told) error { return nil }); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a follower whose time is over: %v", err)
	}
	var all []*findings.Follower
	for f, err := book.Follow(); err == nil; f, err = book.Follow() {
		all = append(all, f)
	}
	if err := follow(func(wire.Told) error { return nil }); !errors.Is(err, wire.ErrBusy) {
		t.Errorf("one follower too many: %v", err)
	}
	for _, f := range all {
		f.Close()
	}
}
