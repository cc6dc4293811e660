//! A host whose state folder was put back to what it was before.

use std::path::Path;

use farhelm_chaos::world::until;

use crate::scene::{Scene, says};

#[tokio::test(flavor = "multi_thread")]
async fn s36_a_host_that_is_put_back_to_an_older_copy_says_so_and_writes_nothing()
-> anyhow::Result<()> {
    let mut scene = Scene::set().await?;
    let folder = tempfile::tempdir()?;
    let (older, newer) = (folder.path().join("older"), folder.path().join("newer"));
    let home = scene.world.home();
    scene.world.host.kill().await;
    copy(&home, &older)?;
    scene.world.start_host(&[]).await?;
    scene.connected().await?;
    scene.turn().await?;
    let before = scene.world.host_log(&scene.session).await?;

    scene.world.host.kill().await;
    std::fs::rename(&home, &newer)?;
    copy(&older, &home)?;
    scene.world.start_host(&[]).await?;
    let told = async || says(&scene, "status").await.contains("copied");
    until("the host says that it is a copy", told).await?;
    assert!(says(&scene, "doctor").await.contains("copied"));
    let shown = scene
        .phone
        .transcript(scene.session.id, before.len() as u64)
        .await?;
    assert_eq!(shown, before, "what was shown stays");

    // Put right, it goes on where it was.
    scene.world.host.kill().await;
    std::fs::remove_dir_all(&home)?;
    std::fs::rename(&newer, &home)?;
    scene.world.start_host(&[]).await?;
    scene.quiet().await?;
    scene.all_is_well().await?;
    scene.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn f17_what_a_flipped_bit_in_the_write_ahead_log_cuts_off_is_noticed_by_what_the_relay_has()
-> anyhow::Result<()> {
    let mut scene = Scene::set().await?;
    scene.connected().await?;
    scene.turn().await?;
    scene.quiet().await?;
    let before = scene.world.host_log(&scene.session).await?;

    scene.world.host.kill().await;
    let file = scene.world.home().join("journal.db-wal");
    let whole = std::fs::read(&file)?;
    let mut broken = whole.clone();
    // SQLite believes nothing from the first frame on whose sum is wrong.
    let frames = (whole.len() - WAL_HEADER) / WAL_FRAME;
    broken[WAL_HEADER + frames / 2 * WAL_FRAME + WAL_FRAME / 2] ^= 1;
    std::fs::write(&file, broken)?;
    scene.world.start_host(&[]).await?;
    let told = async || says(&scene, "status").await.contains("copied");
    until("the host says that it has less than it had", told).await?;
    let shown = scene
        .phone
        .transcript(scene.session.id, before.len() as u64)
        .await?;
    assert_eq!(shown, before, "what was shown stays");
    scene.end().await;
    Ok(())
}

/// SQLite's file format, 4.1 and 4.2, with pages of 4 KiB.
const WAL_HEADER: usize = 32;
const WAL_FRAME: usize = 24 + 4096;

/// Files and folders, as a backup keeps them.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir(to)?;
    std::fs::set_permissions(to, std::fs::metadata(from)?.permissions())?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (kind, to) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &to)?;
        } else if kind.is_file() {
            std::fs::copy(entry.path(), &to)?;
        }
    }
    Ok(())
}
