package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"waxseal/agent/mirror"
	"waxseal/agent/watch"
)

// watchPorts runs detection alone until it is told to stop.
func watchPorts(args []string, stdout, stderr io.Writer) int {
	f, err := parseWatch(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	signal.Ignore(unix.SIGPIPE) // a reader that is gone is an error of Write, so that the hooks are taken away
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	if err := hunt(ctx, f, stdout, stderr); err != nil {
		fmt.Fprintln(stderr, "waxseald watch:", err)
		return 1
	}
	return 0
}

// hunt watches and reports until ctx is done or nobody reads any more.
func hunt(ctx context.Context, f watchFlags, stdout, stderr io.Writer) error {
	if os.Geteuid() != 0 {
		return errors.New("needs root: it hooks network ports and looks into other processes' sockets")
	}
	judge, err := judgeOf(f)
	if err != nil {
		return err
	}
	w, err := watch.Open(watch.Config{Sources: watchSources(f), Judge: judge})
	if err != nil {
		return err
	}
	out := &outlet{to: stdout, table: f.table}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if file, ok := stdout.(*os.File); ok {
		go func() { awaitReaderGone(int(file.Fd())); cancel() }()
	}
	if out.capabilities(w.Capabilities()); out.err == nil {
		w.Run(ctx, func(in mirror.Incident) {
			if out.incident(in); out.err != nil {
				cancel()
			}
		})
	}
	return errors.Join(out.failed(), w.Close())
}

// awaitReaderGone returns when a pipe or socket has no reader any more. It
// never returns for files.
func awaitReaderGone(fd int) {
	poll := []unix.PollFd{{Fd: int32(fd)}} // POLLERR and POLLHUP need not be asked for
	for {
		if _, err := unix.Poll(poll, -1); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
