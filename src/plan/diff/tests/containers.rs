//! Containers of guests that run.

use super::*;

#[test]
fn a_container_that_was_not_started_yet_is_started_without_a_restart() {
    let mut wanted = wanted(&["alice"]);
    let browser = GuestContainer::of_image("browser".parse().unwrap(), "localhost/browser");
    wanted.guests.get_mut(&name("alice")).unwrap().containers = vec![browser];
    assert_eq!(
        diff(&host(&["alice"]), &wanted).detailed(),
        "change alice: container browser was not started\n  start containers browser\n"
    );
}

#[test]
fn a_container_with_a_health_check_is_waited_for_until_it_was_healthy_once() {
    let command = vec!["true".to_owned()];
    let health = HealthCheck { command, interval: 30, timeout: 30, retries: 3, start_period: 0 };
    let plain = GuestContainer::of_image("web".parse().unwrap(), "localhost/web");
    let web = GuestContainer { health: Some(health), ..plain.clone() };
    let mut wanted = wanted(&["alice"]);
    wanted.guests.get_mut(&name("alice")).unwrap().containers = vec![web.clone()];
    assert_eq!(
        diff(&host(&["alice"]), &wanted).detailed(),
        "change alice: container web was not started\n  start containers web\n  wait until healthy: containers web\n"
    );
    let mut found = host(&["alice"]);
    alices_vmm(&mut found).containers = vec![StartedContainer::new(web.clone())];
    assert_eq!(
        diff(&found, &wanted).detailed(),
        "change alice: container web has not been healthy yet\n  wait until healthy: containers web\n"
    );
    alices_vmm(&mut found).containers =
        vec![StartedContainer { healthy: true, ..StartedContainer::new(web) }];
    assert!(diff(&found, &wanted).is_empty());
    // Whoever gives up the check waits for nothing.
    wanted.guests.get_mut(&name("alice")).unwrap().containers = vec![plain];
    assert!(!diff(&found, &wanted).detailed().contains("wait"));
}

#[test]
fn a_container_that_is_not_declared_any_more_goes_and_another_image_takes_the_place() {
    let container = |name: &str, image: &str| GuestContainer::of_image(name.parse().unwrap(), image);
    let mut wanted = wanted(&["alice"]);
    let mut found = host(&["alice"]);
    alices_vmm(&mut found).containers =
        [container("browser", "localhost/a"), container("mail", "localhost/m")]
            .map(StartedContainer::new)
            .to_vec();
    wanted.guests.get_mut(&name("alice")).unwrap().containers = vec![container("browser", "localhost/b")];
    assert_eq!(
        diff(&found, &wanted).detailed(),
        "change alice: container mail is not declared any more, container browser: image localhost/a -> localhost/b\n  \
         remove containers mail\n  start containers browser\n"
    );
    // Those of a snapshot are its own.
    let guest = wanted.guests.get_mut(&name("alice")).unwrap();
    let fresh = Box::new(guest.machine().clone());
    guest.containers.clear();
    guest.startup = Startup::Restored { machine: guest.machine().clone(), fresh };
    assert!(!diff(&found, &wanted).detailed().contains("remove containers"));
}
