// Command interop verifies a Scribe ledger with the libraries of Go's checksum database, golang.org/x/mod/sumdb: its
// note, its tree and its tiles. Nothing of Scribe's is used; what is written here only fetches and compares.
//
//	go run . -from URL|DIR -vkey FILE [-cosigners FILE] [-checkpoints DIR] [-receipts DIR] [-need N]
//
// -from is a node, or what `scribe export --tiles` wrote. It checks the newest checkpoint's signature, binds every entry
// and every tile to its root hash, and checks that each kept checkpoint in -checkpoints is a prefix of every later one. In
// -receipts it verifies each *.tlog-proof, and that changed ones are refused. A cosignature must be there from -need of
// the keys in -cosigners (one a line). Prints a line per check; exit 1 at the first that fails.
package main

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	from := flag.String("from", "", "URL of a node, or directory of an export")
	vkeyFile := flag.String("vkey", "", "file with the ledger's verifier key")
	cosignersFile := flag.String("cosigners", "", "file with the cosigners' verifier keys, one a line")
	checkpoints := flag.String("checkpoints", "", "directory with earlier checkpoints")
	receipts := flag.String("receipts", "", "directory with receipts")
	need := flag.Int("need", 0, "cosigners that every checkpoint must have")
	oldReader := flag.Bool("old-reader", false, "x/mod is older than 0.40: its tile reader does not look at every tile")
	flag.StringVar(&label, "label", "go", "what begins each line")
	flag.Parse()
	if *from == "" || *vkeyFile == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	trust, err := readTrust(*vkeyFile, *cosignersFile, *need)
	check(err, "trust")
	source := newSource(*from)

	text, err := source.fetch("checkpoint")
	check(err, "checkpoint")
	newest, err := trust.open(text)
	check(err, "checkpoint")
	say("checkpoint of %s entries: signature by %s, %d cosignatures", count(newest.N), trust.origin, newest.cosigned)

	bindEntries(source, newest.Tree)
	refuseChangedTiles(source, newest.Tree, *oldReader)
	if *checkpoints != "" {
		checkGrowth(source, trust, *checkpoints, newest)
	}
	if *receipts != "" {
		checkReceipts(trust, *receipts)
	}
}

// bindEntries fetches every entry bundle and builds the whole tree from the entries, which must have the checkpoint's
// root. Then every tile must be what that tree gives, and what the library's own tile reader takes.
func bindEntries(source *source, tree tlog.Tree) {
	started := time.Now()
	hashes := storedHashes{}
	bundles := 0
	for first := int64(0); first < tree.N; first += tileWidth {
		width := min(tree.N-first, tileWidth)
		data, err := source.fetch(entriesPath(first/tileWidth, width))
		check(err, "entry bundle")
		bundles++
		for index := first; index < first+width; index++ {
			if len(data) < 2 || len(data) < 2+int(binary.BigEndian.Uint16(data)) {
				fail("the bundle of entry %d ends early", index)
			}
			length := 2 + int(binary.BigEndian.Uint16(data))
			added, err := tlog.StoredHashes(index, data[2:length], hashes)
			check(err, "tree")
			hashes = append(hashes, added...)
			data = data[length:]
		}
		if len(data) > 0 {
			fail("a bundle goes on after entry %d", first+width-1)
		}
	}
	root, err := tlog.TreeHash(tree.N, hashes)
	check(err, "root")
	if root != tree.Hash {
		fail("the entries have root %v, the checkpoint says %v", root, tree.Hash)
	}

	// From a tree of nothing, all tiles are new; of the partial ones only the widest belong to this size.
	widest := map[tlog.Tile]tlog.Tile{}
	for _, tile := range tlog.NewTiles(tileHeight, 0, tree.N) {
		place := tlog.Tile{H: tile.H, L: tile.L, N: tile.N}
		if tile.W > widest[place].W {
			widest[place] = tile
		}
	}
	reader := tlog.TileHashReader(tree, source)
	for _, tile := range widest {
		wanted, err := tlog.ReadTileData(tile, hashes)
		check(err, "tile")
		found, err := source.fetch(tilePath(tile))
		check(err, "tile")
		if !bytes.Equal(found, wanted) {
			fail("%s is not what the entries give", tilePath(tile))
		}
		read, err := tlog.ReadTileData(tile, reader)
		check(err, "tile reader")
		if !bytes.Equal(read, wanted) {
			fail("%s is read as something else", tilePath(tile))
		}
	}
	if len(widest) != len(source.tiles) {
		fail("%d tiles belong to the tree, %d were read", len(widest), len(source.tiles))
	}
	say("%s entries in %d bundles bound to root %v through %d tiles, in %.1f s",
		count(tree.N), bundles, tree.Hash, len(widest), time.Since(started).Seconds())
}

// storedHashes is a whole tree in memory, in the order of tlog.StoredHashIndex.
type storedHashes []tlog.Hash

// ReadHashes implements tlog.HashReader.
func (h storedHashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	read := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		if index >= int64(len(h)) {
			return nil, fmt.Errorf("hash %d is not there yet", index)
		}
		read[i] = h[index]
	}
	return read, nil
}

// refuseChangedTiles reads through tiles with one bit changed. The library's reader must refuse them; one with
// CVE-2026-56865 (x/mod before 0.40) does not look at each, which is why bindEntries compares them all.
func refuseChangedTiles(source *source, tree tlog.Tree, oldReader bool) {
	refused, tried := 0, 0
	for tile := range source.tiles {
		// The first leaf below the tile's last hash.
		leaf := (tile.N<<tileHeight + int64(tile.W-1)) << uint(tileHeight*tile.L)
		changed := newSource(source.base)
		changed.flip = &tile
		_, err := tlog.TileHashReader(tree, changed).ReadHashes([]int64{tlog.StoredHashIndex(0, leaf)})
		tried++
		if err != nil {
			refused++
		} else if !oldReader {
			fail("a changed bit in %s was not noticed", tilePath(tile))
		}
	}
	if oldReader {
		say("changed tiles: this library is known not to look at each (CVE-2026-56865): it noticed %d of %d", refused, tried)
		return
	}
	say("a changed bit in a tile is noticed by the library, in each of %d tiles", tried)
}

// checkGrowth checks that each checkpoint is a prefix of each later one, with proofs made from the ledger's own tiles,
// and with those that the node makes. An export has the tiles of one size: there the newest is compared with the others.
func checkGrowth(source *source, trust *trust, directory string, newest checkpoint) {
	files, err := filepath.Glob(filepath.Join(directory, "*"))
	check(err, "checkpoints")
	roots := map[int64]tlog.Hash{newest.N: newest.Hash}
	for _, file := range files {
		text, err := os.ReadFile(file)
		check(err, file)
		one, err := trust.open(text)
		check(err, file)
		if root, ok := roots[one.N]; ok && root != one.Hash {
			fail("two roots for size %d", one.N)
		}
		roots[one.N] = one.Hash
	}
	sizes := []int64{}
	for size := range roots {
		sizes = append(sizes, size)
	}
	sort.Slice(sizes, func(a, b int) bool { return sizes[a] < sizes[b] })
	pairs, asked := 0, 0
	for b, newer := range sizes {
		if !source.isURL() && newer != newest.N {
			continue
		}
		reader := tlog.TileHashReader(tlog.Tree{N: newer, Hash: roots[newer]}, source)
		for _, older := range sizes[:b] {
			proof, err := tlog.ProveTree(newer, older, reader)
			check(err, "consistency from tiles")
			check(tlog.CheckTree(proof, newer, roots[newer], older, roots[older]), "consistency")
			forged := roots[older]
			forged[0] ^= 1
			if tlog.CheckTree(proof, newer, roots[newer], older, forged) == nil {
				fail("another root at size %d was taken for a prefix", older)
			}
			pairs++
			if !source.isURL() {
				continue
			}
			proof, err = source.consistency(older, newer)
			check(err, "consistency from the node")
			check(tlog.CheckTree(proof, newer, roots[newer], older, roots[older]), "the node's consistency proof")
			asked++
		}
	}
	if pairs == 0 {
		fail("there are no two checkpoints to compare in %s", directory)
	}
	say("%d signed checkpoints of %d sizes, %s to %s entries: consistent in %d pairs by tiles, %d by the node's proofs",
		len(files)+1, len(sizes), count(sizes[0]), count(newest.N), pairs, asked)
}

func checkReceipts(trust *trust, directory string) {
	files, err := filepath.Glob(filepath.Join(directory, "*.tlog-proof"))
	check(err, "receipts")
	taken, refused := 0, 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		check(err, file)
		check(trust.receipt(text), file)
		taken++
		for what, changed := range tampered(text) {
			if trust.receipt(changed) == nil {
				fail("%s with %s was taken", file, what)
			}
			refused++
		}
	}
	if taken == 0 {
		fail("there is no receipt in %s", directory)
	}
	say("%d receipts verified, %d changed ones refused", taken, refused)
}

// tampered returns the receipt with one thing changed each time.
func tampered(receipt []byte) map[string][]byte {
	change := func(line int, old func(string) string) []byte {
		lines := strings.Split(string(receipt), "\n")
		lines[line] = old(lines[line])
		return []byte(strings.Join(lines, "\n"))
	}
	// Another character of the same alphabet, in the middle of the line.
	middle := func(line string) string {
		at := len(line) / 2
		other := "A"
		if line[at] == 'A' {
			other = "B"
		}
		return line[:at] + other + line[at+1:]
	}
	blank := bytes.Count(receipt[:bytes.Index(receipt, []byte("\n\n"))], []byte("\n")) + 1
	changed := map[string][]byte{
		"another leaf":      change(1, middle),
		"another index":     change(2, func(line string) string { return line + "0" }),
		"another size":      change(blank+2, func(line string) string { return line + "0" }),
		"another root":      change(blank+3, middle),
		"another origin":    change(blank+1, func(line string) string { return line + "x" }),
		"another signature": change(blank+5, middle),
	}
	if blank > 3 {
		changed["another proof"] = change(3, middle)
		changed["a shorter proof"] = change(3, func(string) string { return "" })
	}
	return changed
}

// label begins each line.
var label string

func say(format string, arguments ...any) {
	fmt.Printf(label+": "+format+"\n", arguments...)
}

func fail(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, label+": "+format+"\n", arguments...)
	os.Exit(1)
}

func check(err error, what string) {
	if err != nil {
		fail("%s: %v", what, err)
	}
}

// count writes a number with its digits in groups of three.
func count(number int64) string {
	digits := fmt.Sprint(number)
	for at := len(digits) - 3; at > 0; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	return digits
}
