//go:build linux

package boot_test

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"io/fs"
	"slices"
	"sync"
	"testing"
	"time"

	"waxseal/boot"
)

// flashRate is what the fastest flash of a router gives, in bytes per second.
const flashRate = 300e6

// BenchmarkMeasureByTurns times measuring by turns with reading the same
// bytes, and with reading and hashing them once on one thread, so that what
// else the machine does meets all three alike. The times are medians. In
// memory the bytes come from the page cache, in flash no faster than flashRate.
func BenchmarkMeasureByTurns(b *testing.B) {
	root, size := benchTree(b)
	dir, err := boot.OpenTree(root)
	if err != nil {
		b.Fatal(err)
	}
	defer dir.Close()
	b.Run("memory", func(b *testing.B) { byTurns(b, dir, size) })
	b.Run("flash", func(b *testing.B) { byTurns(b, &flashTree{DirTree: dir, rate: flashRate}, size) })
}

func byTurns(b *testing.B, tree fs.FS, size int64) {
	files, items := benchItems()
	raw, src := policy(items...), router(map[string]fs.FS{"esp": tree})
	buf := make([]byte, 1<<20)
	var reads, hashes, measures []time.Duration
	for b.Loop() {
		reads = append(reads, timed(func() { readFiles(b, tree, files, size, buf, nil) }))
		hashes = append(hashes, timed(func() { readFiles(b, tree, files, size, buf, sha256.New()) }))
		measures = append(measures, timed(func() {
			if err := boot.Measure(b.Context(), raw, src, &tape{}); err != nil {
				b.Fatal(err)
			}
		}))
	}
	read, measured := median(reads), median(measures)
	goal := read + read/10 + 50*time.Millisecond
	b.ReportMetric(float64(measured), "ns/op")
	b.ReportMetric(float64(read), "read-ns/op")
	b.ReportMetric(float64(median(hashes)), "hash-ns/op")
	b.ReportMetric(float64(goal), "goal-ns/op")
	b.ReportMetric(float64(measured)/float64(read), "x/read")
	b.ReportMetric(float64(size)/(1<<20), "MiB")
}

// benchItems returns the files of benchTree and the items that measure them.
func benchItems() (files, items []string) {
	files = []string{"EFI/Linux/waxseal.efi"}
	items = []string{`{"kind":"uki","volume":"esp","path":"EFI/Linux/waxseal.efi"}`, `{"kind":"startup","volume":"esp","paths":["etc/cron.d/*"]}`}
	for i := range 20 {
		file := fmt.Sprintf("loader/l%02d", i)
		files = append(files, file)
		items = append(items, fmt.Sprintf(`{"kind":"file","class":"bootloader","volume":"esp","path":%q}`, file))
	}
	for i := range 32 {
		files = append(files, fmt.Sprintf("etc/cron.d/job%02d", i))
	}
	return files, items
}

func timed(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

func median(d []time.Duration) time.Duration { return slices.Sorted(slices.Values(d))[len(d)/2] }

// readFiles reads size bytes of files, and hashes them if h is not nil.
func readFiles(b *testing.B, tree fs.FS, files []string, size int64, buf []byte, h hash.Hash) {
	for _, name := range files {
		f, err := tree.Open(name)
		if err != nil {
			b.Fatal(err)
		}
		for {
			n, err := f.Read(buf)
			size -= int64(n)
			if h != nil {
				h.Write(buf[:n])
			}
			if err != nil {
				break
			}
		}
		f.Close()
	}
	if size != 0 {
		b.Fatalf("%d bytes were not read", size)
	}
}

// flashTree gives the files of a tree no faster than one device of rate bytes
// per second. A device that nobody asks for longer than late saves no time up.
type flashTree struct {
	*boot.DirTree
	rate float64

	mu   sync.Mutex // guards free
	free time.Time  // when the device has given all that was asked
}

func (t *flashTree) Open(name string) (fs.File, error) {
	f, err := t.DirTree.Open(name)
	if err != nil {
		return nil, err
	}
	return flashFile{f.(fs.ReadDirFile), t}, nil
}

// late is what timers of this host may be late by without slowing the device.
const late = 5 * time.Millisecond

type flashFile struct {
	fs.ReadDirFile
	tree *flashTree
}

func (f flashFile) Read(p []byte) (int, error) {
	n, err := f.ReadDirFile.Read(p)
	time.Sleep(time.Until(f.tree.given(n)))
	return n, err
}

// given returns when the device has given n bytes more.
func (t *flashTree) given(n int) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now := time.Now(); t.free.Before(now.Add(-late)) {
		t.free = now
	}
	t.free = t.free.Add(time.Duration(float64(n) / t.rate * float64(time.Second)))
	return t.free
}
