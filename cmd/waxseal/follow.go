package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"waxseal/fleet/challenge"
	"waxseal/fleet/enroll"
	"waxseal/measure/finding"
	"waxseal/measure/wire"
)

// Pauses between attempts to follow a router that does not answer.
const (
	firstPause = time.Second
	lastPause  = time.Minute
)

func (a *app) mirrorFollow() *cobra.Command {
	var owner, serial string
	var lines bool
	c := &cobra.Command{
		Use: "follow ADDRESS", Short: "Tell a router's findings as they are found",
		Long: "Tells what is open at the router, then every finding and each change of one, until it is interrupted. What is told\n" +
			"was recorded before in the router's TPM; the next 'waxseal attest' proves it. A lost connection is made again.",
		Args: args("ADDRESS, the router's host[:port]"),
	}
	c.Flags().StringVar(&owner, "owner", "", "directory made by 'waxseal owner init'")
	c.Flags().StringVar(&serial, "serial", "", "serial number that the router must have (default: the one enrolled under ADDRESS)")
	c.Flags().BoolVar(&lines, "jsonl", false, "one JSON document a line, for programs")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := need(c, "owner"); err != nil {
			return err
		}
		cred, err := enroll.OpenCredentials(owner)
		if err != nil {
			return fmt.Errorf("--owner: %w", err)
		}
		return inVerb("mirror follow", a.follow(c.Context(), challenge.Config{
			Address: args[0], Roots: cred.Roots, Client: cred.Client, Serial: serial, Now: a.now,
		}, lines))
	}
	return c
}

// follow tells until ctx is done. Only a router that answers and refuses, or
// output that cannot be written, ends it sooner.
func (a *app) follow(ctx context.Context, c challenge.Config, lines bool) error {
	pause := firstPause
	for {
		err := challenge.Follow(ctx, c, func(t wire.Told) error {
			pause = firstPause
			return a.tell(t, lines)
		})
		var written outputError
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &written), errors.Is(err, wire.ErrDenied), errors.Is(err, wire.ErrNotFound), errors.Is(err, wire.ErrNoMethod), errors.Is(err, wire.ErrAnswer):
			return err
		}
		fmt.Fprintf(a.stderr, "waxseal: %s; again in %s\n", clean(err.Error()), pause)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

// outputError is one of writing what was told.
type outputError struct{ error }

// tell writes one line.
func (a *app) tell(t wire.Told, lines bool) error {
	f, err := finding.Parse(t.Content)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", wire.ErrAnswer, t.Name, err)
	}
	if lines {
		b, err := json.Marshal(struct {
			Record  string          `json:"record"`
			Index   int64           `json:"index"` // of the record among the router's; -1: it is not recorded
			Problem string          `json:"problem,omitempty"`
			Finding finding.Finding `json:"finding"`
		}{t.Name, t.Index, t.Problem, f})
		if err != nil {
			return err
		}
		return a.written(fmt.Fprintf(a.stdout, "%s\n", b))
	}
	_, step, _ := finding.Split(t.Name)
	line := fmt.Sprintf("%s  %-10s  %s", f.Last.UTC().Format(time.RFC3339), step, clean(f.Cause))
	if f.Process != "" {
		line += ", " + clean(f.Process)
	}
	if t.Index < 0 {
		line += " (not recorded: " + clean(t.Problem) + ")"
	}
	return a.written(fmt.Fprintln(a.stdout, line))
}

func (a *app) written(_ int, err error) error {
	if err != nil {
		return outputError{err}
	}
	return nil
}
