package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// tileHeight is that of c2sp.org/tlog-tiles: 256 hashes a tile.
const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
)

// source reads the static files of a ledger from a node or a directory, and keeps the tiles it read. It is the
// tlog.TileReader of this program.
type source struct {
	base  string
	tiles map[tlog.Tile][]byte
	// flip is a tile that is given with one bit changed.
	flip *tlog.Tile
}

func newSource(base string) *source {
	return &source{base: strings.TrimSuffix(base, "/"), tiles: map[tlog.Tile][]byte{}}
}

func (s *source) isURL() bool {
	return strings.Contains(s.base, "://")
}

// fetch reads one file by its path below the base.
func (s *source) fetch(path string) ([]byte, error) {
	if !s.isURL() {
		return os.ReadFile(filepath.Join(s.base, filepath.FromSlash(path)))
	}
	answer, err := http.Get(s.base + "/" + path)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, answer.Status, body)
	}
	return body, err
}

// consistency asks the node for its own proof. A tlog.TreeProof has the hashes in the order of RFC 6962.
func (s *source) consistency(older, newer int64) (tlog.TreeProof, error) {
	body, err := s.fetch(fmt.Sprintf("v1/proofs/consistency?old=%d&new=%d", older, newer))
	if err != nil {
		return nil, err
	}
	var answer struct {
		Hashes []string `json:"hashes"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, err
	}
	var proof tlog.TreeProof
	for _, text := range answer.Hashes {
		bytes, err := hex.DecodeString(text)
		if err != nil || len(bytes) != tlog.HashSize {
			return nil, fmt.Errorf("`%s` is no hash", text)
		}
		proof = append(proof, tlog.Hash(bytes))
	}
	return proof, nil
}

// number writes the place of a tile in its level: groups of three digits, all but the last behind an x.
func number(n int64) string {
	text := fmt.Sprintf("%03d", n%1000)
	for n >= 1000 {
		n /= 1000
		text = fmt.Sprintf("x%03d/%s", n%1000, text)
	}
	return text
}

func partial(width int64) string {
	if width == tileWidth {
		return ""
	}
	return fmt.Sprintf(".p/%d", width)
}

// tilePath is C2SP's, which differs from tlog.Tile.Path: it does not name the height.
func tilePath(tile tlog.Tile) string {
	return fmt.Sprintf("tile/%d/%s%s", tile.L, number(tile.N), partial(int64(tile.W)))
}

func entriesPath(n, width int64) string {
	return fmt.Sprintf("tile/entries/%s%s", number(n), partial(width))
}

// Height implements tlog.TileReader.
func (s *source) Height() int { return tileHeight }

// ReadTiles implements tlog.TileReader.
func (s *source) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	read := make([][]byte, len(tiles))
	for i, tile := range tiles {
		data, ok := s.tiles[tile]
		if !ok {
			var err error
			if data, err = s.fetch(tilePath(tile)); err != nil {
				return nil, err
			}
		}
		if s.flip != nil && *s.flip == tile {
			data = append([]byte(nil), data...)
			data[len(data)-1] ^= 1
		}
		read[i] = data
	}
	return read, nil
}

// SaveTiles implements tlog.TileReader: called for tiles that are proved to be in the tree.
func (s *source) SaveTiles(tiles []tlog.Tile, data [][]byte) {
	for i, tile := range tiles {
		s.tiles[tile] = data[i]
	}
}
