package boot_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"slices"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"waxseal/boot"
	"waxseal/measure"
)

// slowTree gives each file only after a while, or when it is let go.
type slowTree struct {
	fstest.MapFS
	pause time.Duration
	free  chan struct{} // nil, or what Open waits for
}

func (s slowTree) Open(name string) (fs.File, error) {
	if s.free != nil {
		<-s.free
	}
	time.Sleep(s.pause)
	return s.MapFS.Open(name)
}

const threeFiles = `{"kind":"file","class":"bootloader","volume":"esp","path":"a"},{"kind":"file","class":"bootloader","volume":"esp","path":"b"},{"kind":"file","class":"bootloader","volume":"esp","path":"c"}`

func slowRouter(pause time.Duration, free chan struct{}) boot.Live {
	files := fstest.MapFS{"a": {Data: []byte("a")}, "b": {Data: []byte("b")}, "c": {Data: []byte("c")}}
	return router(map[string]fs.FS{"esp": slowTree{files, pause, free}})
}

func TestQuickBootIsComplete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got tape
		if err := boot.Measure(t.Context(), policy(threeFiles), slowRouter(500*time.Millisecond, nil), &got); err != nil {
			t.Error(err)
		}
		got.wantCaps(t, "phase/handoff/switch_root")
	})
}

// The budget of 2 s is used up while b is read; b is finished, c not begun.
func TestAfterTheBudgetNothingIsBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got tape
		start := time.Now()
		err := boot.Measure(t.Context(), policy(threeFiles), slowRouter(1500*time.Millisecond, nil), &got)
		if !errors.Is(err, boot.ErrIncomplete) {
			t.Errorf("error %v", err)
		}
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("took %v", took)
		}
		if want := []string{"policy/measure", "bootloader/esp/a", "bootloader/esp/b"}; !slices.Equal(got.names(), want) {
			t.Errorf("records %v: want %v", got.names(), want)
		}
		got.wantCaps(t, "phase/abort/incomplete")
	})
}

func TestAfterTheStopAReaderThatBlocksForEverIsAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		var got tape
		start := time.Now()
		err := boot.Measure(t.Context(), policy(cmdlineItem, threeFiles), slowRouter(0, free), &got)
		if !errors.Is(err, boot.ErrIncomplete) {
			t.Errorf("error %v", err)
		}
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("took %v: the policy's stop is 5 s", took)
		}
		got.wantCaps(t, "phase/abort/incomplete")
		close(free) // the reader comes back after all
		synctest.Wait()
		if want := []string{"policy/measure", "cmdline/live"}; !slices.Equal(got.names(), want) {
			t.Errorf("records %v: want %v", got.names(), want)
		}
		got.wantCaps(t, "phase/abort/incomplete")
	})
}

func TestEndOfTheCallersTimeIsAStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		defer close(free)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var got tape
		if err := boot.Measure(ctx, policy(threeFiles), slowRouter(0, free), &got); !errors.Is(err, boot.ErrIncomplete) {
			t.Errorf("error %v", err)
		}
		got.wantCaps(t, "phase/abort/incomplete")
	})
}

func TestPredictionHasNoBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got tape
		if err := boot.Predict(t.Context(), policy(threeFiles), slowRouter(time.Minute, nil), &got); err != nil {
			t.Error(err)
		}
		got.wantCaps(t, "phase/handoff/switch_root")
	})
}

// hungSink does not answer and does not look at the context.
type hungSink struct {
	tape
	free chan struct{}
}

func (s *hungSink) Record(ctx context.Context, r measure.Record) (measure.Event, error) {
	<-s.free
	return s.tape.Record(ctx, r)
}

func TestRecorderThatHangsDoesNotHoldUpTheBoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := hungSink{free: make(chan struct{})}
		defer close(got.free)
		start := time.Now()
		if err := boot.Measure(t.Context(), policy(threeFiles), slowRouter(0, nil), &got); !errors.Is(err, boot.ErrHangs) {
			t.Errorf("error %v", err)
		}
		if took := time.Since(start); took != 6*time.Second {
			t.Errorf("took %v: stop is 5 s, and one more for the caps", took)
		}
	})
}

func TestRecorderThatHangsDoesNotHoldUpABootWithoutPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got := hungSink{free: make(chan struct{})}
		defer close(got.free)
		start := time.Now()
		if err := boot.Measure(t.Context(), nil, slowRouter(0, nil), &got); !errors.Is(err, boot.ErrHangs) || !errors.Is(err, boot.ErrPolicy) {
			t.Errorf("error %v", err)
		}
		if took := time.Since(start); took > 6*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

var errTPM = errors.New("TPM_RC_FAILURE")

func TestRecordThatIsRefusedEndsTheMeasuring(t *testing.T) {
	got := tape{refuse: func(r measure.Record) error {
		if r.Name == "bootloader/esp/b" {
			return errTPM
		}
		return nil
	}}
	err := boot.Measure(t.Context(), policy(threeFiles), slowRouter(0, nil), &got)
	if !errors.Is(err, boot.ErrRecord) || !errors.Is(err, errTPM) {
		t.Errorf("error %v", err)
	}
	if want := []string{"policy/measure", "bootloader/esp/a"}; !slices.Equal(got.names(), want) {
		t.Errorf("records %v: want %v", got.names(), want)
	}
	got.wantCaps(t, "phase/abort/record")
}

func TestRecorderThatRefusesAllGivesAnErrorAndNoRecord(t *testing.T) {
	got := tape{refuse: func(measure.Record) error { return errTPM }}
	for _, raw := range [][]byte{nil, policy(threeFiles)} {
		if err := boot.Measure(t.Context(), raw, slowRouter(0, nil), &got); !errors.Is(err, errTPM) {
			t.Errorf("error %v", err)
		}
	}
	if len(got.records) != 0 {
		t.Errorf("records %v", got.records)
	}
}

// failAt is a file that gives an input/output error at byte n.
type failAt struct{ n int }

var errIO = errors.New("input/output error")

func (f *failAt) Read(b []byte) (int, error) {
	if f.n == 0 {
		return 0, errIO
	}
	n := min(f.n, len(b))
	f.n -= n
	return n, nil
}

func (*failAt) Close() error { return nil }

func TestReadErrorAtAnyByteIsAnErrorRecord(t *testing.T) {
	for _, n := range []int{0, 1, 1<<20 - 1, 1 << 20, 1<<20 + 1, 3 << 20} {
		src := router(nil)
		src.Executable = func() (io.ReadCloser, error) { return &failAt{n}, nil }
		var got tape
		if err := boot.Measure(t.Context(), policy(`{"kind":"agent"}`), src, &got); err != nil {
			t.Fatal(err)
		}
		c, ok := got.content("agent/exe!error")
		if !ok || c != sha256.Sum256([]byte("error")) || !errors.Is(got.notes["agent/exe!error"], errIO) {
			t.Errorf("error at byte %d: records %v, note %v", n, got.names(), got.notes)
		}
	}
}
