// Command waxseal-image is the build host's program: it makes images of
// routers, says what a good boot of them looks like, provisions their TPMs
// and runs them under QEMU.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run returns the exit code: 0, 1 for an error, 2 for a wrong command line.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:               "waxseal-image",
		Short:             "Make, predict, provision and run router images",
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.AddCommand(buildCommand(), factoryCommand(), predictCommand(), learnCommand(), tamperCommand(), runCommand())
	started := false // the command line was right, and the command runs
	for _, c := range root.Commands() {
		do := c.RunE
		c.RunE = func(cmd *cobra.Command, args []string) error {
			started = true
			return do(cmd, args)
		}
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "waxseal-image:", err)
	if !started {
		return 2
	}
	return 1
}
