// Package findings puts what the watch finds under the TPM's signature: a
// finding and its end are records in the runtime PCR before anybody is told of
// them, so that they cannot be taken back.
//
// It judges nothing. It bounds what one boot may record, so that nobody can fill
// the log by provoking findings, and says so once when the bound is reached.
package findings

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"waxseal/agent/mirror"
	"waxseal/measure"
	"waxseal/measure/finding"
)

// Bounds of one boot.
const (
	maxSubjects = 256 // findings
	maxSteps    = 6   // records of one finding
	maxLists    = 64  // records of capabilities, and of inventories
	within      = 10 * time.Second
)

// Recorder is where records go; *measure.Recorder is one.
type Recorder interface {
	Record(ctx context.Context, r measure.Record) (measure.Event, error)
	Freeze(f func(log []measure.Event) error) error
}

// Keeper keeps contents by their digest, so that they can be shown.
type Keeper interface {
	Keep(content []byte) error
}

// Config is what a Book works with.
type Config struct {
	Recorder Recorder // nil: nothing is recorded, and every finding says so
	Keeper   Keeper   // nil: contents are not kept
	Profile  measure.Profile
}

// Book records findings and tells them to those who follow. It is safe for
// concurrent use.
type Book struct {
	config Config

	mu        sync.Mutex        // guards all below, and the order of records and tellings
	steps     map[string]int    // records by subject
	last      map[string]string // the last step by subject
	lists     map[string]int    // records of lists by prefix
	overflown bool
	open      map[string]Entry // by subject: what a new follower is told first
	followers map[*Follower]bool
	listed    map[string]string // the last content of a list, by prefix
}

// Entry is a finding as it was recorded.
type Entry struct {
	Name    string // of the record
	Content []byte // finding.Finding, encoded
	Index   int    // of the record among the agent's records, from 0; -1: it is not recorded
	Problem string // why it is not recorded; empty: it is
}

// New takes up the log where it is: what an earlier agent of this boot has
// recorded counts too.
func New(c Config) (*Book, error) {
	b := &Book{
		config: c, steps: map[string]int{}, last: map[string]string{}, lists: map[string]int{},
		open: map[string]Entry{}, followers: map[*Follower]bool{}, listed: map[string]string{},
	}
	if c.Recorder == nil {
		return b, nil
	}
	err := c.Recorder.Freeze(func(log []measure.Event) error {
		for _, e := range log {
			b.takeUp(e.Name)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("findings: %w", err)
	}
	return b, nil
}

func (b *Book) takeUp(name string) {
	if subject, step, ok := finding.Split(name); ok {
		b.steps[subject]++
		b.last[subject] = string(step)
	}
	for _, prefix := range []string{finding.Capabilities, finding.Inventory, finding.Stopped} {
		if strings.HasPrefix(name, prefix) {
			b.lists[prefix]++
		}
	}
	b.overflown = b.overflown || name == finding.Overflow
}

// Report records what is new of an incident, and then tells it. An update that
// takes no step, such as a new rate, is told to followers only. The error says
// why it is not recorded; it was told nevertheless.
func (b *Book) Report(ctx context.Context, in mirror.Incident) error {
	subject, step := name(in), stepOf(in)
	content, err := describe(in).Encode()
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	entry := Entry{Name: subject + "/" + string(step), Content: content, Index: -1}
	if b.takes(subject, in, step) {
		if entry.Index, err = b.record(ctx, subject, step, content); err != nil {
			entry.Problem = err.Error()
		}
	} else if old, ok := b.open[subject]; ok {
		entry.Index, entry.Problem = old.Index, old.Problem
	}
	b.tell(subject, step, entry)
	return err
}

// takes tells whether an incident is at a step that its record does not say yet.
func (b *Book) takes(subject string, in mirror.Incident, step finding.Step) bool {
	last, known := b.last[subject]
	if !known && step == finding.Info && (!inventory(in.Kind) || in.Baseline) {
		return false // information about traffic, such as a flood, is no finding; and what was there is in the inventory
	}
	if !known && step == finding.Ended {
		return false // nothing was said of it
	}
	return last != string(step)
}

// record extends a step's record, or once the record of too many.
func (b *Book) record(ctx context.Context, subject string, step finding.Step, content []byte) (int, error) {
	if _, known := b.steps[subject]; !known && len(b.steps) >= maxSubjects {
		if b.overflown {
			return -1, errFull
		}
		b.overflown = true
		_, err := b.extend(ctx, finding.Overflow, []byte(finding.Overflow))
		if err == nil {
			err = errFull
		}
		return -1, err
	}
	if b.steps[subject] >= maxSteps && step != finding.Alarm {
		return -1, errFull
	}
	if b.steps[subject] >= 2*maxSteps {
		return -1, errFull
	}
	index, err := b.extend(ctx, subject+"/"+string(step), content)
	if err != nil {
		return -1, err
	}
	b.steps[subject]++
	b.last[subject] = string(step)
	return index, nil
}

var errFull = fmt.Errorf("findings: more than %d findings, or %d steps of one: not recorded", maxSubjects, maxSteps)

// extend keeps the content and extends its record.
func (b *Book) extend(ctx context.Context, name string, content []byte) (index int, err error) {
	if b.config.Recorder == nil {
		return -1, errNotRecorded
	}
	r, err := b.config.Profile.Of(name, content)
	if err != nil {
		return -1, err
	}
	if b.config.Keeper != nil {
		_ = b.config.Keeper.Keep(content) // without it the verifier says that details are not available
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if _, err := b.config.Recorder.Record(ctx, r); err != nil {
		return -1, fmt.Errorf("findings: %w", err)
	}
	err = b.config.Recorder.Freeze(func(log []measure.Event) error {
		for i, e := range log {
			if e.Name == name {
				index = i
			}
		}
		return nil
	})
	return index, err
}

var errNotRecorded = fmt.Errorf("findings: this device records nothing: it has no TPM, or its boot was not measured")

// list records a list under the next number of prefix, if it has changed.
func (b *Book) list(ctx context.Context, prefix string, content []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.listed[prefix] == string(content) {
		return nil
	}
	if b.lists[prefix] >= maxLists {
		return errFull
	}
	b.listed[prefix] = string(content)
	b.lists[prefix]++
	_, err := b.extend(ctx, prefix+strconv.Itoa(b.lists[prefix]), content)
	return err
}

// Capabilities records what the watch can see from now on, if that has changed.
func (b *Book) Capabilities(ctx context.Context, list []mirror.Capability) error {
	content, err := coverage(list).Encode()
	if err != nil {
		return err
	}
	return b.list(ctx, finding.Capabilities, content)
}

// Inventory records what was there when the watch began.
func (b *Book) Inventory(ctx context.Context, content []byte) error {
	return b.list(ctx, finding.Inventory, content)
}

// Stopped records that the watch does not run, and why.
func (b *Book) Stopped(ctx context.Context, why string) error {
	return b.list(ctx, finding.Stopped, []byte(why))
}
