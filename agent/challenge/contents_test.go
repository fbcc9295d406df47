package challenge

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"waxseal/measure/wire"
)

func open(t *testing.T, dir string) *Contents {
	t.Helper()
	c, err := OpenContents(dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestContentsOutliveTheProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "contents")
	for _, text := range []string{"a", "", "a"} {
		if err := open(t, dir).Keep([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	c := open(t, dir)
	for _, text := range []string{"a", ""} {
		b, err := c.Content(t.Context(), sha256.Sum256([]byte(text)))
		if err != nil || string(b) != text {
			t.Errorf("content %q: %q, %v", text, b, err)
		}
	}
	if c.total != 1 {
		t.Errorf("total is %d bytes: want 1", c.total)
	}
}

func TestUnknownContentIsNotFound(t *testing.T) {
	_, err := open(t, t.TempDir()).Content(t.Context(), [32]byte{1})
	if !errors.Is(err, wire.ErrNotFound) {
		t.Errorf("%v: want ErrNotFound", err)
	}
}

func TestChangedContentIsNotServed(t *testing.T) {
	sum := sha256.Sum256([]byte("router a"))
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("router a"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(path string) error{
		"other bytes": func(p string) error { return os.WriteFile(p, []byte("router b"), 0o600) },
		"symlink":     func(p string) error { return errors.Join(os.Remove(p), os.Symlink(secret, p)) },
		"directory":   func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o700)) },
	} {
		c := open(t, t.TempDir()) // the cases come in any order
		if err := c.Keep([]byte("router a")); err != nil {
			t.Fatal(err)
		}
		if err := change(c.path(sum)); err != nil {
			t.Fatal(err)
		}
		if b, err := c.Content(t.Context(), sum); err == nil {
			t.Errorf("%s: served as %q", name, b)
		}
	}
}

func TestContentsAreBounded(t *testing.T) {
	c := open(t, t.TempDir())
	if err := c.Keep(make([]byte, wire.MaxContent+1)); !errors.Is(err, ErrFull) {
		t.Errorf("one byte too many: %v: want ErrFull", err)
	}
	var err error
	n := 0
	for ; err == nil && n < 100; n++ {
		err = c.Keep(bytes.Repeat([]byte{byte(n)}, wire.MaxContent))
	}
	if !errors.Is(err, ErrFull) || n != MaxTotal/wire.MaxContent+1 {
		t.Errorf("content %d: %v: want ErrFull at %d", n, err, MaxTotal/wire.MaxContent+1)
	}
}
