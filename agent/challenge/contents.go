// Package challenge is the agent's own interface beside attestz: what lies
// under the digests of its log, whether it can attest, and quotes that answer
// many challengers at once.
//
// A challenger never gets a quote that does not commit to its nonce. The
// package serves only what it was given to keep. Whoever measures decides what may
// be shown: a content with a secret in it is never kept, and is then unknown
// here like any other.
package challenge

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"waxseal/measure/wire"
)

// MaxTotal bounds all contents together, in bytes: they lie in memory.
const MaxTotal = 16 << 20

// ErrFull means that a content is too large to be kept, or too many are.
var ErrFull = errors.New("no room for the content")

// Contents keeps contents by their SHA-256 in a directory of the running
// system, so that they outlive the process.
type Contents struct {
	dir   string
	mu    sync.Mutex // guards total, and the order of writes
	total int64      // bytes kept
}

// OpenContents opens the directory, and makes it where there is none.
func OpenContents(dir string) (*Contents, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("contents: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("contents: %w", err)
	}
	c := &Contents{dir: dir}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return nil, fmt.Errorf("contents: %w", err)
		}
		c.total += info.Size()
	}
	return c, nil
}

// Keep keeps a content that may be shown to the owner.
func (c *Contents) Keep(content []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	path := c.path(sha256.Sum256(content))
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	if len(content) > wire.MaxContent || c.total+int64(len(content)) > MaxTotal {
		return fmt.Errorf("%w: %d bytes beside %d", ErrFull, len(content), c.total)
	}
	temp := filepath.Join(c.dir, "new")
	if err := os.WriteFile(temp, content, 0o600); err != nil {
		return fmt.Errorf("keep content: %w", err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("keep content: %w", err)
	}
	c.total += int64(len(content))
	return nil
}

// Content returns the content with the given SHA-256. A file that has another
// digest is not served.
func (c *Contents) Content(_ context.Context, sum [sha256.Size]byte) ([]byte, error) {
	f, err := os.OpenFile(c.path(sum), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("content %x: %w", sum, wire.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("content %x: %w", sum, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, wire.MaxContent+1))
	if err != nil {
		return nil, fmt.Errorf("content %x: %w", sum, err)
	}
	if sha256.Sum256(b) != sum {
		return nil, fmt.Errorf("content %x: %w: what was kept has changed", sum, wire.ErrNotFound)
	}
	return b, nil
}

func (c *Contents) path(sum [sha256.Size]byte) string {
	return filepath.Join(c.dir, hex.EncodeToString(sum[:]))
}
