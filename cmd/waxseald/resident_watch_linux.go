package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"waxseal/agent"
	"waxseal/agent/findings"
	"waxseal/agent/mirror"
	"waxseal/agent/mirror/probe/inventory"
	"waxseal/agent/watch"
	"waxseal/measure"
	"waxseal/measure/finding"
)

// attachFindings gives the agent its book of findings.
func attachFindings(c *agent.Config) error {
	book := findings.Config{Profile: measure.Waxseal1}
	if r, ok := c.Recorder.(findings.Recorder); ok {
		book.Recorder = r
	}
	if k, ok := c.Kept.(findings.Keeper); ok {
		book.Keeper = k
	}
	var err error
	c.Findings, err = findings.New(book)
	return err
}

// staleAfter is how long the watch may be silent before a quote says that it does
// not run; it makes ten rounds a second.
const staleAfter = 3 * time.Second

// opensWithin is how long the watch may take to begin: the kernel of a slow
// router verifies the programs for ten seconds. A quote before that shows by its
// lack of capabilities that nothing is watched yet.
const opensWithin = time.Minute

// pulse is the heartbeat of the watch, for who takes quotes.
type pulse struct {
	watch atomic.Pointer[watch.Watch]
	born  time.Time
	told  atomic.Bool // that it does not run
}

// check records before a quote that the watch does not run, once for each time
// that it stops.
func (p *pulse) check(ctx context.Context, book *findings.Book, now time.Time) {
	last, patience := p.born, opensWithin
	if w := p.watch.Load(); w != nil && !w.State().Last.IsZero() {
		last, patience = w.State().Last, staleAfter
	}
	if now.Sub(last) < patience {
		p.told.Store(false)
		return
	}
	if p.told.CompareAndSwap(false, true) {
		_ = book.Stopped(ctx, "the watch did not run when a quote was asked for") // without a recorder there is no quote either
	}
}

// guardTraffic watches the router's physical ports until ctx is done, and puts
// what it finds into the book. A watch that cannot run is recorded; it stops
// nothing else.
func guardTraffic(ctx context.Context, book *findings.Book, p *pulse, serial string, log *slog.Logger) {
	err := watchTraffic(ctx, book, p, serial, log)
	if err == nil {
		err = errors.New("the agent was told to stop")
	}
	log.Warn("traffic is not watched", "cause", err)
	record, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if rerr := book.Stopped(record, err.Error()); rerr != nil {
		log.Warn("end of the watch", "cause", rerr)
	}
}

func watchTraffic(ctx context.Context, book *findings.Book, p *pulse, serial string, log *slog.Logger) error {
	f := watchFlags{mode: "full", serial: serial, pins: pinDir}
	if _, err := os.Stat(mirrorsFile); !errors.Is(err, fs.ErrNotExist) {
		f.authorised, f.approvers = mirrorsFile, approversFile
	}
	judge, err := judgeOf(f)
	if err != nil { // then nothing is authorised
		log.Warn("authorised mirrors do not count", "cause", err)
		judge = mirror.NewJudge(mirror.Config{})
	}
	w, err := watch.Open(watch.Config{Sources: watchSources(f), Judge: judge, Changed: func(list []mirror.Capability) {
		for _, in := range judge.Ports(hooked(list)) {
			note(ctx, book, in, log)
		}
		if err := book.Capabilities(ctx, list); err != nil {
			log.Warn("capabilities of the watch", "cause", err)
		}
	}})
	if err != nil {
		none := []mirror.Capability{{Name: "watch", State: mirror.None, Why: err.Error()}}
		return errors.Join(err, book.Capabilities(ctx, none))
	}
	p.watch.Store(w)
	if err := recordInventory(ctx, book); err != nil {
		log.Warn("inventory", "cause", err)
	}
	w.Run(ctx, func(in mirror.Incident) { note(ctx, book, in, log) })
	return w.Close()
}

// note puts an incident into the book. What cannot be recorded was told to those
// who follow nevertheless.
func note(ctx context.Context, book *findings.Book, in mirror.Incident, log *slog.Logger) {
	if in.Severity == mirror.Alarm {
		log.Warn("finding", "kind", in.Kind, "state", in.State, "cause", in.Clean().Cause)
	}
	if err := book.Report(context.WithoutCancel(ctx), in); err != nil {
		log.Debug("finding is not recorded", "id", in.ID, "cause", fmt.Sprint(err))
	}
}

// recordInventory records what is there as the watch begins.
func recordInventory(ctx context.Context, book *findings.Book) error {
	source, err := inventory.Open(inventory.Config{})
	if err != nil {
		return err
	}
	there, err := source.Snapshot(ctx)
	if err := errors.Join(err, source.Close()); err != nil {
		return err
	}
	var list finding.Things
	for _, o := range there {
		list = append(list, finding.Thing{Kind: string(o.Kind), Cause: o.Cause, Target: o.Target, Process: o.Process.Comm})
	}
	content, err := list.Encode()
	if err != nil {
		return err
	}
	return book.Inventory(ctx, content)
}
