//! Tile coordinates, paths and entry bundles.

mod common;

use proptest::prelude::*;
use scribe_proof::tile::{parse_bundle, push_entry};
use scribe_proof::{HashReader, Tile, TileError, TilePath, TreeSize, root_at};

fn tile(level: u8, index: u64, width: u16) -> Tile {
    Tile::new(level, index, width).unwrap()
}

#[test]
fn paths() {
    let check = |tile: Tile, path: &str| {
        assert_eq!(tile.path(), path);
        assert_eq!(TilePath::parse(path), Ok(TilePath::Hashes(tile)));
    };
    check(tile(0, 0, 256), "tile/0/000");
    check(tile(0, 0, 1), "tile/0/000.p/1");
    check(tile(1, 999, 256), "tile/1/999");
    check(tile(2, 1000, 255), "tile/2/x001/000.p/255");
    check(tile(0, 1_234_067, 256), "tile/0/x001/x234/067");
    check(tile(63, 0, 256), "tile/63/000");
    assert_eq!(
        tile(0, 1_234_067, 17).entries_path().unwrap(),
        "tile/entries/x001/x234/067.p/17"
    );
    assert_eq!(
        TilePath::parse("tile/entries/x001/x234/067.p/17"),
        Ok(TilePath::Entries(tile(0, 1_234_067, 17)))
    );
    assert_eq!(tile(1, 0, 1).entries_path(), None);
}

#[test]
fn only_canonical_paths() {
    for wrong in [
        "",
        "tile",
        "tile/",
        "tile/0",
        "tile/0/",
        "/tile/0/000",
        "tile/0/0",
        "tile/0/00",
        "tile/0/0000",
        "tile/00/000",
        "tile/0/x000/001",
        "tile/0/001/002",
        "tile/0/x001",
        "tile/0/x001/",
        "tile/0/x1/000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/",
        "tile/0/000.p",
        "tile/0/000.p/1/",
        "tile/0/000/",
        "tile/-1/000",
        "tile/entries",
        "tile/data/000",
        "tile/0/+01",
        "tile/0/0x1",
        "tile/0/000.p/1.p/1",
        "tile/0/../000",
        "tile/0/٣٣٣",
    ] {
        assert_eq!(TilePath::parse(wrong), Err(TileError::Path), "{wrong}");
    }
    assert_eq!(
        TilePath::parse("tile/64/000"),
        Err(TileError::Level { found: 64 })
    );
    let far = "tile/0/x072/x057/x594/x037/x927/936";
    assert_eq!(TilePath::parse(far), Err(TileError::Index));
    assert_eq!(Tile::new(0, 0, 0), Err(TileError::Width { found: 0 }));
    assert_eq!(Tile::new(0, 0, 257), Err(TileError::Width { found: 257 }));
}

#[test]
fn tiles_of_70_000_leaves() {
    // The example of the specification.
    let size = TreeSize::new(70_000);
    let tiles: Vec<Tile> = Tile::all(size).collect();
    let of = |level: u8| tiles.iter().filter(move |tile| tile.level() == level);
    assert_eq!((of(0).count(), of(1).count(), of(2).count()), (274, 2, 1));
    assert_eq!(tiles.len(), 277);
    assert_eq!(of(0).next_back(), Some(&tile(0, 273, 112)));
    assert_eq!(of(1).next_back(), Some(&tile(1, 1, 17)));
    assert_eq!(of(2).next_back(), Some(&tile(2, 0, 1)));
    assert!(tiles.iter().all(|tile| tile.exists_at(size)));
    assert!(!tile(0, 273, 113).exists_at(size));
    assert!(tile(0, 273, 111).exists_at(size));
    assert!(!tile(8, 0, 1).exists_at(TreeSize::new(u64::MAX)));
    assert_eq!(Tile::at(0, 274, size), None);
    assert_eq!(Tile::at(3, 0, size), None);
    assert_eq!(Tile::all(TreeSize::EMPTY).count(), 0);
}

#[test]
fn new_tiles_are_the_difference() {
    for (old, new) in [
        (0, 1),
        (1, 2),
        (255, 256),
        (256, 257),
        (256, 256),
        (300, 70_000),
        (65_535, 65_536),
    ] {
        let (old, new) = (TreeSize::new(old), TreeSize::new(new));
        let before: Vec<Tile> = Tile::all(old).collect();
        let expected: Vec<Tile> = Tile::all(new)
            .filter(|tile| !before.contains(tile))
            .collect();
        assert_eq!(
            Tile::new_since(old, new).collect::<Vec<_>>(),
            expected,
            "{old} to {new}"
        );
    }
}

#[test]
fn tiles_are_ranges_of_the_stored_levels() {
    // A tree read through tiles of its own size only has the same root.
    struct Tiles<'a>(&'a scribe_proof::MemoryTree);
    impl HashReader for Tiles<'_> {
        type Error = scribe_proof::tree::OutOfRange;
        fn read(
            &self,
            level: u8,
            start: u64,
            count: usize,
            out: &mut Vec<scribe_proof::Hash>,
        ) -> Result<(), Self::Error> {
            let tile = Tile::at(level, start / 256, self.0.size()).unwrap();
            assert!(start + count as u64 <= tile.start() + u64::from(tile.width()));
            self.0.read(level, start, count, out)
        }
    }
    let (tree, _) = common::number_tree(1000);
    for size in [1, 255, 256, 257, 999, 1000] {
        let size = TreeSize::new(size);
        assert_eq!(
            root_at(&Tiles(&tree), size).unwrap(),
            root_at(&tree, size).unwrap()
        );
    }
}

#[test]
fn bundles() {
    let mut bundle = Vec::new();
    for entry in [&b"one"[..], b"", b"three"] {
        push_entry(&mut bundle, entry).unwrap();
    }
    assert_eq!(bundle, b"\x00\x03one\x00\x00\x00\x05three");
    assert_eq!(
        parse_bundle(&bundle, 3).unwrap(),
        [&b"one"[..], b"", b"three"]
    );
    assert_eq!(
        parse_bundle(&bundle, 4),
        Err(TileError::BundleTruncated {
            entry: 3,
            expected: 4
        })
    );
    assert_eq!(
        parse_bundle(&bundle, 2),
        Err(TileError::BundleTrailing {
            found: 7,
            expected: 2
        })
    );
    assert_eq!(
        parse_bundle(&bundle[..11], 3),
        Err(TileError::BundleTruncated {
            entry: 2,
            expected: 3
        })
    );
    assert_eq!(parse_bundle(&bundle, 0), Err(TileError::Width { found: 0 }));
    assert_eq!(
        push_entry(&mut bundle, &vec![0; 65_536]),
        Err(TileError::EntryLength { found: 65_536 })
    );
    push_entry(&mut bundle, &vec![0; 65_535]).unwrap();
}

proptest! {
    #[test]
    fn path_round_trip(level in 0..=63_u8, index in 0..1_u64 << 56, width in 1..=256_u16) {
        let tile = tile(level, index, width);
        prop_assert_eq!(TilePath::parse(&tile.path()), Ok(TilePath::Hashes(tile)));
        let entries = TilePath::Entries(Tile::new(0, index, width).unwrap());
        prop_assert_eq!(TilePath::parse(&entries.to_string()), Ok(entries));
    }

    #[test]
    fn what_parses_is_canonical(path in "tile/([0-9]{1,2}|entries)(/x[0-9]{3}){0,3}/[0-9]{3}(\\.p/[0-9]{1,3})?") {
        if let Ok(parsed) = TilePath::parse(&path) {
            prop_assert_eq!(parsed.to_string(), path);
        }
    }
}

#[test]
fn a_tile_says_where_it_is() {
    let tile = tile(2, 1_000, 255);
    assert_eq!((tile.level(), tile.index(), tile.width()), (2, 1_000, 255));
}

#[test]
fn a_full_bundle_has_256_entries_and_none_has_more() {
    let mut bundle = Vec::new();
    for entry in 0..256_u16 {
        push_entry(&mut bundle, &entry.to_be_bytes()).unwrap();
    }
    assert_eq!(parse_bundle(&bundle, 256).unwrap().len(), 256);
    push_entry(&mut bundle, b"one more").unwrap();
    assert_eq!(
        parse_bundle(&bundle, 257),
        Err(TileError::Width { found: 257 })
    );
}
