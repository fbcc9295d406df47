// Command waxseal is the operator's tool: it enrolls routers, challenges them
// and says whether they have booted what they should.
//
// It believes signatures, never a router's word, and it changes nothing on a
// router but the owner's certificates.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// Exit codes.
const (
	exitOK          = 0 // affirming, or done
	exitError       = 1 // the question could not be put, or there was nothing to judge by
	exitUsage       = 2 // the command line is wrong
	exitFailed      = 3 // at least one failed verdict
	exitUnreachable = 4 // no verdict: stale or unreachable
)

// run is the program without its process.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, now: time.Now}
	root := a.command()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var code exitCode
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "waxseal: %s\nRun '%s --help' for usage.\n", clean(usage.Error()), usage.command)
		return exitUsage
	}
	fmt.Fprintf(stderr, "waxseal: %s\n", clean(strings.ReplaceAll(err.Error(), "\n", "; ")))
	return exitError
}

// app is what all verbs share.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	now            func() time.Time
}

// exitCode ends the program after everything has been said.
type exitCode int

// Error implements error.
func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// usageError is a wrong command line.
type usageError struct {
	command string
	error
}

func (a *app) command() *cobra.Command {
	root := a.group("waxseal", "Firmware integrity for routers: enroll them, challenge them, judge what they booted",
		a.factory(), a.manifest(), a.owner(), a.enroll(), a.attest(), a.evidence(), a.refs(), a.delivery(), a.mirror(), a.version())
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usageError{c.CommandPath(), err} })
	return root
}

// group returns a command that only has commands below it.
func (a *app) group(use, short string, below ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs}
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usageError{c.CommandPath(), errors.New("which command?")}
		}
		return usageError{c.CommandPath(), fmt.Errorf("no command %q in %q", args[0], c.CommandPath())}
	}
	c.AddCommand(below...)
	return c
}

// args asks for exactly the arguments named.
func args(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, got []string) error {
		if len(got) < len(names) {
			return usageError{c.CommandPath(), fmt.Errorf("need %s", names[len(got)])}
		}
		if len(got) > len(names) {
			return usageError{c.CommandPath(), fmt.Errorf("%q is one argument too many", got[len(names)])}
		}
		return nil
	}
}

// need tells which of the flags named are not there.
func need(c *cobra.Command, flags ...string) error {
	for _, name := range flags {
		if f := c.Flags().Lookup(name); f.Value.String() == "" {
			return usageError{c.CommandPath(), fmt.Errorf("need --%s: %s", name, f.Usage)}
		}
	}
	return nil
}
